"""Scenes of photographed things, and a fusion that knows their facts."""
