"""Pictures and texts to features, labels to targets."""
