"""Converts checkpoints of other libraries to presets, and models back."""

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.convert import unimodal
from keras_bridgetower.presets import registry

registry.register_conversions(
    cache.open_converted, export.export_model, unimodal.open_encoders
)
