"""Image-text matching: draws pairs from a batch, with labels and scores."""
