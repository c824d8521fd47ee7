"""Training runs: checkpoints, exact continuation, and checks."""
