"""Rules: which variable of a model belongs to which tensor of a checkpoint."""
