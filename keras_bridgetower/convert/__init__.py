"""Weights of other libraries: into presets, and back."""
