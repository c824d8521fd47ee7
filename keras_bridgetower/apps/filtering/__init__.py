"""Scores the image-text pairs of a web data set, and keeps the best."""
