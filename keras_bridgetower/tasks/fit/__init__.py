"""Reads and checks the data in `fit`, `evaluate` and `predict` of a task."""
