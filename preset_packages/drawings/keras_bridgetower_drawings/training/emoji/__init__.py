"""Emoji: a small world of real drawings, words and artists."""
