"""Image transforms for training and evaluation, as the authors used them."""
