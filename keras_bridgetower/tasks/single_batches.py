"""Steps on one batch of raw inputs, which Keras calls `..._on_batch`."""

import keras

from keras_bridgetower.tasks import input_checks
from keras_bridgetower.tasks import training_data


class SingleBatches:
    """Trains, tests and predicts on a batch, in the order of Keras' arguments.

    What a preprocessor draws is as in `fit`: of training by the steps that
    were taken before, else as for the first batch of `evaluate`.
    """

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, **kwargs
    ):
        self._check_place()
        input_checks.check_arrays(self, x, y, class_weight=class_weight)
        steps = training_data.Steps(getattr(self, "optimizer", None))
        made = self._prepared(x, y, sample_weight, steps.first)
        with self.inference.training("train_on_batch"):
            return keras.Model.train_on_batch(
                self, *made, class_weight=class_weight, **kwargs
            )

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        input_checks.check_arrays(self, x, y)
        made = self._prepared(x, y, sample_weight)
        with self.inference.testing("test_on_batch"):
            return keras.Model.test_on_batch(self, *made, **kwargs)

    def predict_on_batch(self, x):
        features, _, _ = self._prepared(x)
        with self.inference.predicting("predict_on_batch"):
            return keras.Model.predict_on_batch(self, features)

    def _prepared(self, x, y=None, sample_weight=None, number=0):
        # KerasHub's own fail at labels of several objectives.
        x = training_data.with_number(self, x, number)
        made = self.preprocess_samples(x, y, sample_weight)
        return keras.utils.unpack_x_y_sample_weight(made)
