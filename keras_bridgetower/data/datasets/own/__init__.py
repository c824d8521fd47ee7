"""A user's own tables of images and texts."""
