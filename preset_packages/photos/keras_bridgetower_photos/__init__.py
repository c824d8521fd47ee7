"""Presets that know photographs, for `keras_bridgetower`."""
