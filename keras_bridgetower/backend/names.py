"""Backends of Keras that run the encoders.

OpenVINO's builds them, but fails in the image encoder, when a token is repeated
for each picture. A model is exported to OpenVINO in place of it.
"""

BACKENDS = ("tensorflow", "jax", "torch")
