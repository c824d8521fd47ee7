"""`fit`, `evaluate` and `predict` of Keras, on datasets as they are given."""

import keras

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import devices
from keras_bridgetower.backend import keras_patches_fit
from keras_bridgetower.preprocessing.close_datasets import closed_on_error
from keras_bridgetower.preprocessing.datasets import untuned
from keras_bridgetower.preprocessing.tf_graph import typed_errors
from keras_bridgetower.tasks.inference import FirstStep


class ReadsUntuned(keras.Model):
    """Training and prediction on datasets as `untuned` leaves them.

    As the last base of a task it comes after KerasHub's classes, which would
    preprocess once more.
    """

    def fit(
        self, x=None, *args, validation_data=None, callbacks=None, **kwargs
    ):
        keras_patches_fit.forget_continued(self)
        with closed_on_error(self), typed_errors():
            return super().fit(
                untuned(x),
                *args,
                validation_data=untuned(validation_data),
                callbacks=with_callback(callbacks, FirstStep()),
                **kwargs,
            )

    def evaluate(self, x=None, *args, **kwargs):
        with closed_on_error(self), typed_errors():
            return super().evaluate(untuned(x), *args, **kwargs)

    def predict(self, x, *args, callbacks=None, **kwargs):
        sizes = _Sizes()
        with closed_on_error(self), typed_errors():
            made = super().predict(
                untuned(x),
                *args,
                callbacks=with_callback(callbacks, sizes),
                **kwargs,
            )
        return devices.current().all_rows(x, made, sizes.rows)

    def train_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().train_step(*args)

    def test_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().test_step(*args)

    def predict_step(self, *args):
        return devices.current().predicted(super().predict_step(*args))


class _Sizes(keras.callbacks.Callback):
    """Counts the rows of each batch that is predicted."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_predict_batch_end(self, batch, logs=None):
        # Keras puts the outputs of a dict into the logs one by one, and makes
        # a number of what has one value.
        first = keras.tree.flatten(logs)[0]
        self.rows.append(len(first) if getattr(first, "shape", ()) else 1)


def with_callback(callbacks, own):
    """Callbacks as Keras takes them, with one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(own)
        return callbacks
    return [own, *(c for c in keras.tree.flatten(callbacks) if c is not None)]
