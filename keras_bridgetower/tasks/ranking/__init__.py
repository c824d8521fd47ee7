"""Ranks all images for all texts with little memory."""
