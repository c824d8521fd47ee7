"""How tasks are compiled and trained."""

import contextlib

import keras
import keras_hub
from keras import ops

from keras_bridgetower import engine
from keras_bridgetower import replicas
from keras_bridgetower.losses import counted_rows
from keras_bridgetower.preprocessing.datasets import untuned
from keras_bridgetower.preprocessing.graph import typed_errors
from keras_bridgetower.preprocessing.raw_inputs import sliceable

ABSTRACT = "`BridgeTowerTask` is abstract. Use a subclass. Received: task={}"


class ReadsUntuned(keras.Model):
    """Training and prediction on datasets as `untuned` leaves them.

    As the last base of a task it comes after KerasHub's classes, and gets the
    datasets that these made of arrays and preprocessing.
    """

    def fit(self, x=None, *args, validation_data=None, **kwargs):
        with typed_errors():
            return super().fit(
                untuned(x),
                *args,
                validation_data=untuned(validation_data),
                **kwargs,
            )

    def evaluate(self, x=None, *args, **kwargs):
        with typed_errors():
            return super().evaluate(untuned(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        with typed_errors():
            return super().predict(untuned(x), *args, **kwargs)


class TrainableTask(keras_hub.models.Task, ReadsUntuned):
    """Abstract: loss, metrics and the steps of training.

    The base of `BridgeTowerTask`. Loss and metrics may see labels and outputs
    in another form than `predict` gives them; hooks say in which.
    """

    def default_loss(self):
        """The loss that `compile` uses by default."""
        raise TypeError(ABSTRACT.format(type(self).__name__))

    def default_metrics(self):
        """The metrics that `compile` uses by default."""
        raise TypeError(ABSTRACT.format(type(self).__name__))

    def loss_inputs(self, y, y_pred):
        """Labels and outputs as the loss takes them."""
        return y, y_pred

    def metric_inputs(self, y, y_pred):
        """Labels and outputs as the metrics take them."""
        # On JAX no weight can be read while metrics are updated.
        return y, y_pred

    def unread_layers(self):
        """Layers in the graph that lead to no output."""
        return []

    @property
    def trainable_weights(self):
        # Of weights without a gradient Keras warns, or decays them.
        return self._without_unread(super().trainable_weights)

    @property
    def trainable_variables(self):
        return self._without_unread(super().trainable_variables)

    def _without_unread(self, variables):
        layers = self.unread_layers()
        unread = {id(w) for layer in layers for w in layer.weights}
        return [v for v in variables if id(v) not in unread]

    def compile(
        self,
        optimizer="auto",
        loss="auto",
        *,
        metrics="auto",
        weighted_metrics=None,
        **kwargs,
    ):
        """Set up training.

        Args:
            optimizer: a Keras optimizer or identifier. By default AdamW with
                the authors' settings for fine-tuning, constant rate.
            loss: a Keras loss; by default the task's. What is logged is its
                mean over the rows whose weight is not 0.
            metrics: list of metrics. By default the task's, and those as
                `weighted_metrics` where none are given: rows of weight 0,
                which fill a batch up, do not count.
            weighted_metrics: list of metrics, which sample weights weigh.
            **kwargs: as `keras.Model.compile`.
        """
        if optimizer == "auto":
            # Base VQA fine-tuning of the authors' scripts, without schedule.
            optimizer = keras.optimizers.AdamW(
                1e-5, weight_decay=0.05, beta_2=0.98, epsilon=1e-8
            )
        if metrics == "auto":
            metrics = self.default_metrics()
            if weighted_metrics is None:
                metrics, weighted_metrics = None, metrics
        super().compile(
            optimizer=optimizer,
            loss=self.default_loss() if loss == "auto" else loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )
        replicas.current().prepare(self)
        self._place = replicas.current().place

    def get_metrics_result(self):
        with replicas.current().summed(self.metrics_variables):
            return super().get_metrics_result()

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        y, y_pred = self.loss_inputs(y, y_pred)
        return super().compute_loss(x, y, y_pred, sample_weight, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred = self.metric_inputs(y, y_pred)
        self._leave_out_filled(y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _leave_out_filled(self, y_pred, sample_weight):
        """Take rows of weight 0 out of the numbers of rows of the losses.

        The loss of a batch is a sum, in which they are 0, over its rows; the
        mean over batches has just been weighed by all their rows.
        """
        weights = keras.tree.flatten(sample_weight)
        counted = [counted_rows(w) for w in weights if w is not None]
        if not counted:
            return
        filled = ops.logical_not(ops.any(ops.stack(counted), axis=0))
        filled = ops.cast(filled, "float32")
        # While a graph is traced their number may be unknown, and then Keras
        # weighs the batches alike in the losses of single outputs.
        known = keras.tree.flatten(y_pred)[0].shape[0] is not None
        for mean in self.metrics:
            if isinstance(mean, keras.metrics.Mean) and (
                mean.name.endswith("loss")
            ):
                by_rows = known or mean.name == "loss"
                left_out = ops.sum if by_rows else ops.mean
                mean.count.assign(mean.count - left_out(filled))

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(
        self, x=None, y=None, *, validation_data=None, shuffle=False, **kwargs
    ):
        """Train, on raw inputs where the task has a preprocessor.

        Args:
            x: a `tf.data` dataset of `(x, y)`, or a dict of arrays.
            y: labels, where `x` is arrays.
            validation_data: as `x`, or a tuple of it and labels.
            shuffle: bool. Raw inputs become a dataset first, which Keras
                takes in its order; shuffle the dataset yourself.
            **kwargs: as `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.
        """
        self._check_place()
        # A compiled step takes over their memory; others would leave a copy
        # here, of weights as they were before training.
        compiled = self.jit_compile and not self.run_eagerly
        kept = engine.kept_weights if compiled else contextlib.nullcontext
        if isinstance(validation_data, (tuple, list)):
            raw, *labels = validation_data
            validation_data = (sliceable(raw), *labels)
        with kept(self):
            return super().fit(
                sliceable(x),
                y,
                validation_data=validation_data,
                shuffle=shuffle,
                **kwargs,
            )

    def evaluate(self, x=None, *args, **kwargs):
        self._check_place()
        with engine.kept_weights(self):
            return super().evaluate(sliceable(x), *args, **kwargs)

    def predict(self, x, *args, **kwargs):
        self._check_place()
        with engine.kept_weights(self):
            return super().predict(sliceable(x), *args, **kwargs)

    def _check_place(self):
        # One that was never compiled is for Keras to refuse, or to predict.
        replicas.check_compiled(
            self, getattr(self, "_place", replicas.current().place)
        )

    def train_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        self._check_place()
        # KerasHub's own two fail at labels of several objectives.
        samples = self.preprocess_samples(x, y, sample_weight)
        samples = keras.utils.unpack_x_y_sample_weight(samples)
        return keras.Model.train_on_batch(self, *samples, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        samples = self.preprocess_samples(x, y, sample_weight)
        samples = keras.utils.unpack_x_y_sample_weight(samples)
        return keras.Model.test_on_batch(self, *samples, **kwargs)


def unread_of(fusion, outputs):
    """Layers of a fusion that lead to none of some outputs.

    Args:
        fusion: a `CrossModalEncoder`.
        outputs: tuple out of its outputs: what is read of it, if anything.

    Returns:
        List of layers, for a task's `unread_layers`.
    """
    unread = {
        (): [fusion],
        ("text",): [
            fusion.text_pooler,
            fusion.image_pooler,
            *fusion.steps[-1].image_only,
        ],
    }
    return unread.get(outputs, [])
