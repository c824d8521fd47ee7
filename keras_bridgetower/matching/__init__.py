"""What matching learns of image-text pairs: which, their labels, scores."""
