"""Readers of the original files of each data set."""
