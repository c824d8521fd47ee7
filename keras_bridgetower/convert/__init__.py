"""Weights of other libraries: into presets, and back."""

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.presets import foreign

foreign.register(cache.opened, export.export_model)
