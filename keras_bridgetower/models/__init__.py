"""Towers, bridges, cross-modal layers, the backbone and its heads."""
