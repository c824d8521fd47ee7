"""The former place of `ConversionError`, now in `presets.errors`."""

from keras_bridgetower.presets.errors import ConversionError as ConversionError
