"""`fit`, `evaluate` and `predict` of a task, and the same for one batch."""

import contextlib
import numbers

import keras

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import devices
from keras_bridgetower.backend.keras_private.training import forget_continued
from keras_bridgetower.backend.keras_private.updates import check_trained
from keras_bridgetower.tasks.fit import data_path
from keras_bridgetower.tasks.fit import value_checks
from keras_bridgetower.tasks.fit.batch_checks import check_arrays
from keras_bridgetower.tasks.fit.batch_checks import check_place_of
from keras_bridgetower.tasks.fit.steps import Steps
from keras_bridgetower.tasks.inference import FirstStep
from keras_bridgetower.tasks.loss_and_metrics import CompiledTask


class TrainableTask(CompiledTask):
    """Abstract: a task that is trained on raw inputs or features.

    The base of `BridgeTowerTask`. `fit/data_path.py` lists what data go
    through. Keras' own methods are called by name
    (`Replicas.run`), past those of KerasHub, which would preprocess once more.
    """

    def fit(
        self,
        x=None,
        y=None,
        batch_size=None,
        epochs=1,
        verbose="auto",
        callbacks=None,
        validation_split=None,
        validation_data=None,
        shuffle=None,
        class_weight=None,
        sample_weight=None,
        **kwargs,
    ):
        """Train, on raw inputs where the task has a preprocessor.

        What a preprocessor draws depends on its seed and on how many steps
        the model has been trained: anew in each epoch, the same in each run.
        Validation draws the same in each epoch.

        The loss of a batch is the sum of its rows' weighted losses divided by
        the number of rows, as in Keras: a row of weight 0 counts as a row.
        Rows that only pad a batch, which `Stream(remainder="pad")` marks by
        the weight -0.0, do not. Regularization is added once. This loss is
        minimized, and its mean over the rows of an epoch is logged.

        If several processes train together, each must call this with the same
        data, and trains on its rows of every batch.

        Args:
            x: a dict of arrays, lists and columns of tables, or batches, `x`,
                `(x, y)` or `(x, y, sample_weight)`: a `tf.data.Dataset`, a
                `keras.utils.PyDataset`, a torch `DataLoader`, a grain dataset
                or a generator. Batches that bring `x["step"]` keep it.
            y: labels, where `x` is arrays.
            batch_size: int, rows of a batch of arrays; 32 by default.
            epochs, verbose, callbacks: as `keras.Model.fit`.
            validation_split: float, share of the arrays, their last rows, to
                validate on.
            validation_data: batches, or a tuple `(x, y, sample_weight)`.
            shuffle: bool, whether to read arrays in another order in each
                epoch, drawn by NumPy's global seed
                (`keras.utils.set_random_seed`); by default they are, as by
                `keras.Model.fit`. A dataset is read in its own order.
            class_weight: dict from each class id to its weight. Of scores a
                row has the class of its largest; one without any counts as
                class 0, so give it a `sample_weight` of 0.
            sample_weight: `(samples,)`, where `x` is arrays.
            **kwargs: as `keras.Model.fit`.

        Returns: `keras.callbacks.History`.

        Raises:
            ValueError: data that do not fit the task or each other, or other
                weights to train than at the last `compile`.
        """
        self._check_place()
        check_trained(self)
        check_place_of("epochs", epochs, numbers.Integral)
        kwargs |= {"epochs": epochs, "verbose": verbose}
        kwargs["class_weight"] = class_weight
        steps = Steps(getattr(self, "optimizer", None))
        data, held = (x, y, sample_weight), (validation_data, validation_split)
        given = data_path.for_training(
            self, steps, data, held, batch_size, shuffle, kwargs
        )
        steps.weighted = bool(class_weight) or data_path.is_weighted(given["x"])
        callbacks = _with_callback(callbacks, steps)
        # A compiled step takes over their memory; another one would leave a
        # copy here, as they were before training.
        compiled = self.jit_compile and not self.run_eagerly
        kept = contextlib.nullcontext()
        if compiled:
            kept = backend_ops.kept_weights(self, trains=True)
        with self.inference.training("fit"), kept:
            forget_continued(self)
            with data_path.reading(self):
                # Not KerasHub's, which would preprocess once more.
                return devices.current().run(
                    "fit",
                    self,
                    **given,
                    callbacks=_with_callback(callbacks, FirstStep()),
                    **kwargs,
                )

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        **kwargs,
    ):
        """Loss and metrics, on raw inputs where the task has a preprocessor.

        What a preprocessor draws depends on its seed and on the number of the
        batch: the same in each call.

        Args:
            x, y, batch_size, verbose, sample_weight: as `fit`.
            **kwargs: as `keras.Model.evaluate`.
        """
        self._check_place()
        check_place_of("verbose", verbose, (numbers.Integral, str))
        # Inside of `fit` they are ready.
        if not kwargs.get("_use_cached_eval_dataset"):
            x = data_path.prepared(self, x, y, sample_weight, batch_size)
        with (
            self.inference.testing("evaluate"),
            backend_ops.kept_weights(self),
            data_path.reading(self),
        ):
            found = devices.current().run(
                "evaluate", self, x, verbose=verbose, **kwargs
            )
        devices.current().check_order()
        return found

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        self._check_place()
        given = {"batch_size": batch_size, "labelled": False}
        x = data_path.prepared(self, x, **given)
        nothing = data_path.without_rows(self, x)
        if nothing is not None:
            return nothing
        sizes, kept = _Sizes(), backend_ops.kept_weights
        with self.inference.predicting("predict"), kept(self):
            with data_path.reading(self):
                made = devices.current().run(
                    "predict",
                    self,
                    x,
                    verbose=verbose,
                    steps=steps,
                    callbacks=_with_callback(callbacks, sizes),
                )
            devices.current().check_order()
            return devices.current().gather_predictions(x, made, sizes.rows)

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, **kwargs
    ):
        """Train on one batch, as `keras.Model.train_on_batch`.

        A preprocessor draws by the steps that were taken before, as in `fit`.
        """
        self._check_place()
        check_trained(self)
        check_arrays(self, x, y, class_weight=class_weight)
        steps = Steps(getattr(self, "optimizer", None))
        made = self._prepared(x, y, sample_weight, steps.first)
        with self.inference.training("train_on_batch"):
            return devices.current().run(
                "train_on_batch",
                self,
                *made,
                class_weight=class_weight,
                **kwargs,
            )

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """Loss and metrics of one batch, as the first one of `evaluate`."""
        check_arrays(self, x, y)
        made = self._prepared(x, y, sample_weight)
        with self.inference.testing("test_on_batch"):
            return devices.current().run("test_on_batch", self, *made, **kwargs)

    def predict_on_batch(self, x):
        """Outputs for one batch, as the first one of `predict`."""
        features, _, _ = self._prepared(x)
        with self.inference.predicting("predict_on_batch"):
            return devices.current().run("predict_on_batch", self, features)

    def _prepared(self, *batch):
        # KerasHub's own fail at labels of several objectives.
        made = data_path.prepared_batch(self, *batch)
        return keras.utils.unpack_x_y_sample_weight(made)

    def train_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().train_step(*args)

    def test_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().test_step(*args)

    def predict_step(self, *args):
        return devices.current().readable_outputs(super().predict_step(*args))

    def _check_place(self):
        # One that was never compiled is for Keras to refuse, or to predict.
        place = getattr(self, "_place", devices.current().place)
        devices.check_compiled(self, place)

    def preprocess_samples(self, x, y=None, sample_weight=None):
        # What a preprocessor makes it has checked itself.
        if self.preprocessor is None and isinstance(x, dict):
            value_checks.check_values(self, x, y)
        return super().preprocess_samples(x, y, sample_weight)


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


def _with_callback(callbacks, own):
    """Callbacks as Keras takes them, with one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(own)
        return callbacks
    return [own, *(c for c in keras.tree.flatten(callbacks) if c is not None)]
