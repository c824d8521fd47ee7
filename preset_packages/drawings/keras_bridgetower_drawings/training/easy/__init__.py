"""A small world to try all tasks on: easy-VQA's pictures and texts about them.

Its name is not `easy_vqa`, which would hide the package with the pictures.
"""
