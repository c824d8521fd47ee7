"""BridgeTower vision-language models for Keras 3."""

from keras_bridgetower.version import __version__
