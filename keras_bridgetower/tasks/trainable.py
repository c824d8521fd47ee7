"""How tasks are compiled and trained."""

import contextlib
import numbers

import keras
import keras_hub
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import devices
from keras_bridgetower.backend import keras_patches
from keras_bridgetower.losses import counted_rows
from keras_bridgetower.losses import weight_column
from keras_bridgetower.tasks import input_checks
from keras_bridgetower.tasks import training_data
from keras_bridgetower.tasks import value_checks
from keras_bridgetower.tasks.keras_fit import ReadsUntuned
from keras_bridgetower.tasks.keras_fit import with_callback
from keras_bridgetower.tasks.saved_compiled import SavedCompiled
from keras_bridgetower.tasks.single_batches import SingleBatches

ABSTRACT = "`BridgeTowerTask` is abstract. Use a subclass. Received: task={}"


class TrainableTask(
    SingleBatches, SavedCompiled, keras_hub.models.Task, ReadsUntuned
):
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

    def label_words(self):
        """What `y` must hold, in words; None where it may be left out."""
        return "one label for each sample, as the class describes"

    def label_widths(self):
        """How many logits a label chooses from; a dict for several outputs."""
        if not isinstance(self.output, dict):
            return self.output.shape[-1]
        # Embeddings are no logits, and come in dicts of their own.
        logits = {k: x for k, x in self.output.items() if type(x) is not dict}
        return {name: x.shape[-1] for name, x in logits.items()}

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
            optimizer: a Keras optimizer or identifier. By default Keras'
                AdamW with rate, decay and betas of the authors' VQA alone: one
                constant rate, and biases and norms decay too. Theirs is
                `training.optimizers.AdamW` with rows, or a recipe. With
                `gradient_accumulation_steps` schedules count updates.
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
        devices.current().prepare(self)
        self._place = devices.current().place

    def get_metrics_result(self):
        with devices.current().summed(self.metrics_variables):
            return super().get_metrics_result()

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        rows = keras.tree.flatten(y_pred)[0].shape[0]
        weights = keras.tree.map_structure(
            lambda weights: weight_column(weights, rows), sample_weight
        )
        y, y_pred = self.loss_inputs(y, y_pred)
        return super().compute_loss(x, y, y_pred, weights, training)

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred = self.metric_inputs(y, y_pred)
        self._leave_out_filled(y_pred, sample_weight)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def _leave_out_filled(self, y_pred, sample_weight):
        """Take rows of weight 0 out of the numbers of rows of the losses.

        The loss of a batch is a sum over its rows, where they are 0; the mean
        over batches has just been weighed by all rows.
        """
        weights = keras.tree.flatten(sample_weight)
        counted = [counted_rows(w) for w in weights if w is not None]
        if not counted:
            return
        counted = ops.any(ops.stack(counted), axis=0)
        filled = ops.cast(ops.logical_not(counted), "float32")
        # While a graph is traced their number may be unknown, and then Keras
        # weighs the batches alike in the losses of single outputs.
        known = keras.tree.flatten(y_pred)[0].shape[0] is not None
        for mean in keras_patches.loss_means(self):
            left_out = ops.sum if known or mean.name == "loss" else ops.mean
            mean.count.assign(mean.count - left_out(filled))

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
        shuffle=False,
        class_weight=None,
        sample_weight=None,
        **kwargs,
    ):
        """Train, on raw inputs where the task has a preprocessor.

        What a preprocessor draws depends on its seed and on how many steps
        the model has been trained: anew in each epoch, the same in each run.
        Validation draws the same in each epoch.

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
                (`keras.utils.set_random_seed`). A dataset is read in its own.
            class_weight: dict from each class id to its weight.
            sample_weight: `(samples,)`, where `x` is arrays.
            **kwargs: as `keras.Model.fit`.

        Returns: `keras.callbacks.History`.

        Raises:
            ValueError: data that do not fit the task or each other.
        """
        self._check_place()
        input_checks.check_place_of("epochs", epochs, numbers.Integral)
        kwargs |= {"epochs": epochs, "verbose": verbose}
        kwargs["class_weight"] = class_weight
        steps = training_data.Steps(getattr(self, "optimizer", None))
        data, held = (x, y, sample_weight), (validation_data, validation_split)
        given = training_data.training(
            self, steps, data, held, batch_size, shuffle, kwargs
        )
        # A compiled step takes over their memory; another one would leave a
        # copy here, as they were before training.
        compiled = self.jit_compile and not self.run_eagerly
        kept = backend_ops.kept_weights if compiled else contextlib.nullcontext
        with self.inference.training("fit"), kept(self):
            return ReadsUntuned.fit(
                self,
                **given,
                callbacks=with_callback(callbacks, steps),
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
        input_checks.check_place_of("verbose", verbose, (numbers.Integral, str))
        # Inside of `fit` they are ready.
        if not kwargs.get("_use_cached_eval_dataset"):
            x = training_data.reading(self, x, y, sample_weight, batch_size)
        with self.inference.testing("evaluate"), backend_ops.kept_weights(self):
            return ReadsUntuned.evaluate(self, x, verbose=verbose, **kwargs)

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        self._check_place()
        given = {"batch_size": batch_size, "labelled": False}
        x = training_data.reading(self, x, **given)
        with (
            self.inference.predicting("predict"),
            backend_ops.kept_weights(self),
        ):
            return ReadsUntuned.predict(
                self, x, verbose=verbose, steps=steps, callbacks=callbacks
            )

    def _check_place(self):
        # One that was never compiled is for Keras to refuse, or to predict.
        place = getattr(self, "_place", devices.current().place)
        devices.check_compiled(self, place)

    def preprocess_samples(self, x, y=None, sample_weight=None):
        # What a preprocessor makes it has checked itself.
        if self.preprocessor is None and isinstance(x, dict):
            value_checks.check_values(self, x, y)
        return super().preprocess_samples(x, y, sample_weight)


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
