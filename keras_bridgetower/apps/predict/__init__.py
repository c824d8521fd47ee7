"""Runs a task over a folder of pictures or a table, and writes the results."""
