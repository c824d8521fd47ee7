"""Presets by name, and the folders behind them."""
