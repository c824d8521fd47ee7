"""The model: image and text towers, bridges, cross-modal layers, heads."""
