"""Presets in the benchmarks of others: mteb."""
