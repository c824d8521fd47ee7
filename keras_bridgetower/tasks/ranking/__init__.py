"""Ranking all images for all texts, in little memory."""
