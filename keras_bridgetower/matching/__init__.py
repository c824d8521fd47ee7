"""Image-text matching: which pairs of a batch are made, labels and scores."""
