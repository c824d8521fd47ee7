"""Presets of keras-bridgetower that know drawings, and their training."""
