"""Photographs: a small world of real things and places, and what is said."""
