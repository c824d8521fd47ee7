"""What `fit`, `evaluate` and `predict` of a task do with data."""
