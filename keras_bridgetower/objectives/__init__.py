"""Losses, objectives of pairs, and checks of labels."""
