"""Readers of the files in which the data sets are given out."""
