"""A tiny world to try all tasks on: easy-VQA's pictures, and texts about them.

The folder is not called `easy_vqa`: that is the name of the installed package
with the pictures, which it would hide.
"""
