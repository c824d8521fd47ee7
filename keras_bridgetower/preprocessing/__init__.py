"""Converts pictures and texts to features, and labels to targets."""
