"""Rules that connect variables of a model and tensors of a checkpoint."""
