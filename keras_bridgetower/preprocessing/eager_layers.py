"""Base of preprocessing layers: called directly, so errors stay as raised."""

import keras

from keras_bridgetower.preprocessing.tf_graph import in_tf_graph


class DirectLayer(keras.layers.Layer):
    """Abstract: a layer without weights whose errors arrive as raised.

    `keras.layers.Layer.__call__` would print all arguments, whole pictures
    among them, behind the sentence that helps, and refuse dicts of tensors
    and strings. What it does for weights and masks is not needed here. As the
    last base it comes after KerasHub's classes.
    """

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.built = True

    def __call__(self, *args, **kwargs):
        if not in_tf_graph():
            return self.call(*args, **kwargs)
        import tensorflow as tf

        # AutoGraph would rewrite what decides in Python.
        call = tf.autograph.experimental.do_not_convert(self.call)
        return call(*args, **kwargs)
