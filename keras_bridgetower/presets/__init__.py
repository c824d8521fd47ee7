"""Presets: saved models that are opened by name, folder or hub handle."""
