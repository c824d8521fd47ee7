"""Images and strings to arrays, labels to targets."""
