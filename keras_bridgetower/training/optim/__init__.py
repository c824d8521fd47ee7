"""The optimizer and the learning rate schedule of the authors."""
