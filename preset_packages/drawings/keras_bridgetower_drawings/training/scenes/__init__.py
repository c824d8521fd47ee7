"""Scenes of one to three drawings, and a fusion that knows their facts."""
