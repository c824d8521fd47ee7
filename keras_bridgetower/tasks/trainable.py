"""Training of a task: `compile`, `fit`, `evaluate` and `predict`."""

import contextlib

import keras
import keras_hub
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private import training as keras_training
from keras_bridgetower.backend.keras_private.updates import check_trained
from keras_bridgetower.checks import BuiltElsewhere
from keras_bridgetower.checks import MissingMethod
from keras_bridgetower.distribution import strategy
from keras_bridgetower.objectives import losses
from keras_bridgetower.objectives.pair_objectives import with_packed
from keras_bridgetower.tasks.fit import batch_checks
from keras_bridgetower.tasks.fit import data_path
from keras_bridgetower.tasks.fit.data_path import Steps

_WITHOUT_SLOTS = "optimizer_without_slots"


class TrainableTask(keras_hub.models.Task):
    """Abstract: a task that is trained on raw inputs or features.

    `fit/data_path.py` lists the steps that data go through. `Strategy.run`
    calls the methods of `keras.Model`, because KerasHub's would preprocess a
    second time.
    """

    # --- The loss and the metrics of a task. ---

    def default_loss(self):
        """Return the loss that `compile` uses by default."""
        raise MissingMethod(type(self).__name__, "default_loss")

    def default_metrics(self):
        """Return the metrics that `compile` uses by default."""
        raise MissingMethod(type(self).__name__, "default_metrics")

    def loss_inputs(self, y, y_pred):
        """Return labels and outputs in the form that the loss takes."""
        if _has_embeddings(y_pred):
            y_pred = with_packed(y_pred, self.heads["itc"].logit_scale)
        return y, y_pred

    def metric_inputs(self, y, y_pred):
        """Return labels and outputs in the form that the metrics take."""
        # On JAX no weight can be read while metrics are updated.
        return y, with_packed(y_pred) if _has_embeddings(y_pred) else y_pred

    def label_words(self):
        """Describe `y` for errors, or return None if `y` is optional."""
        return "labels, as the class describes them"

    def label_widths(self):
        """Return the number of logits; for several outputs a dict."""
        if not isinstance(self.output, dict):
            return self.output.shape[-1]
        # Embeddings are no logits, and come in dicts of their own.
        logits = {k: x for k, x in self.output.items() if type(x) is not dict}
        return {name: x.shape[-1] for name, x in logits.items()}

    def unread_layers(self):
        """Return the layers of the graph that lead to no output."""
        return []

    @property
    def trainable_weights(self):
        # Keras would warn about weights without gradients, or decay them.
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
        """Configure the task for training.

        Args:
            optimizer: a Keras optimizer or its identifier. The default is
                Keras' AdamW with the learning rate, decay and betas of the
                authors' VQA fine-tuning, but with a constant rate, and weight
                decay also on biases and norms. For the authors' optimizer use
                `keras_bridgetower.training.AdamW` with rows, or a recipe.
                With `gradient_accumulation_steps` schedules count updates.
            loss: a Keras loss of logits. The default is the task's loss. `fit`
                describes how rows are weighted.
            metrics: list of metrics. The default is the task's metrics; if
                `weighted_metrics` is None too, they become the weighted
                metrics, so that rows of weight 0 do not count.
            weighted_metrics: list of metrics that use sample weights.
            **kwargs: as in `keras.Model.compile`.
        """
        if optimizer == "auto":
            # Base VQA fine-tuning of the authors' scripts, without schedule.
            optimizer = keras.optimizers.AdamW(
                1e-5, weight_decay=0.05, beta_2=0.98, epsilon=1e-8
            )
        _check_reads_logits(loss)
        if metrics == "auto":
            metrics = self.default_metrics()
            if weighted_metrics is None:
                metrics, weighted_metrics = None, metrics
        precision.warn_where_slow(self.backbone.fusion.dtype_policy)
        super().compile(
            optimizer=optimizer,
            loss=self.default_loss() if loss == "auto" else loss,
            metrics=metrics,
            weighted_metrics=weighted_metrics,
            **kwargs,
        )
        strategy.current().prepare(self)
        self._place = strategy.current().place

    def make_train_function(self, force=False):
        if self.train_function is None or force:
            super().make_train_function(force=True)
            self.train_function = keras_training.reads_held(
                self, self.train_function
            )
        return self.train_function

    def make_test_function(self, force=False):
        if self.test_function is None or force:
            super().make_test_function(force=True)
            self.test_function = keras_training.reads_held(
                self, self.test_function
            )
        return self.test_function

    def get_metrics_result(self):
        with strategy.current().summed(self.metrics_variables):
            return super().get_metrics_result()

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        first = keras.tree.flatten(y_pred)[0]
        weights = keras.tree.map_structure(
            lambda w: losses.weight_column(w, first.shape[0]), sample_weight
        )
        share = _share_without_padding(weights)
        if share is not None:
            weights = keras.tree.map_structure(
                lambda w: None if w is None else ops.divide_no_nan(w, share),
                weights,
            )
        y, y_pred = self.loss_inputs(y, y_pred)
        _check_targets(self.loss, y, y_pred)
        if share is None and first.shape[0] is not None:
            return super().compute_loss(x, y, y_pred, weights, training)
        # Keras weights the batches of an epoch by their rows, padding
        # included. If TensorFlow does not know that number, Keras does not
        # weight the losses of heads at all.
        share = 1.0 if share is None else share
        rows = ops.cast(ops.shape(first)[0], "float32")
        before = {}
        for mean in keras_training.loss_means(self)[1]:
            before[id(mean)] = [ops.add(v, 0) for v in mean.variables]
            mean.reset_state()
        loss = super().compute_loss(x, y, y_pred, weights, training)
        total, heads = keras_training.loss_means(self)
        for mean in heads:
            of_batch = mean.result()
            old = before.get(id(mean), (0, 0))
            for variable, value in zip(mean.variables, old, strict=True):
                variable.assign(value)
            mean.update_state(of_batch, sample_weight=rows * share)
        # Keras adds this batch with all its rows afterwards.
        replicas = strategy.current().count
        scaled = replicas if keras.config.backend() == "tensorflow" else 1
        total.update_state(loss * scaled, sample_weight=rows * (share - 1))
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred = self.metric_inputs(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and not getattr(self.optimizer, "built", True):
            # Otherwise Keras warns that the missing slots do not fit.
            config[_WITHOUT_SLOTS] = True
        return config

    def compile_from_config(self, config):
        config = keras_training.with_public_optimizers(config)
        without_slots = config.pop(_WITHOUT_SLOTS, False)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if not without_slots:
            precision.build_once(self.optimizer, self.trainable_variables)

    # --- Passes over data. ---

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
        """Train on raw inputs, or on features if there is no preprocessor.

        Random draws of the preprocessor depend on its seed and on the number
        of training steps so far: they differ between epochs, and are the same
        in each run. Validation draws the same in each epoch.

        The loss of a batch is the sum of its rows' weighted losses divided by
        the number of rows, as in Keras: a row of weight 0 counts as a row.
        Rows that only pad a batch, which `Stream(remainder="pad")` marks by
        the weight -0.0, do not. Regularization is added once. This loss is
        minimized, and its mean over the rows of an epoch is logged.

        If several processes train together, each must call this with the same
        data, and trains on its rows of every batch.

        Args:
            x: dict of arrays, lists and columns of tables; or batches `x`,
                `(x, y)` or `(x, y, sample_weight)`: a `tf.data.Dataset`, a
                `keras.utils.PyDataset`, a torch `DataLoader`, a grain dataset
                or a generator. Batches that contain `x["step"]` keep it.
            y: labels, if `x` is arrays.
            batch_size: int, rows per batch of arrays; 32 by default.
            epochs, verbose, callbacks: as in `keras.Model.fit`.
            validation_split: float, share of the arrays, their last rows, to
                validate on.
            validation_data: batches, or a tuple `(x, y, sample_weight)`.
            shuffle: bool, whether to read arrays in a new order in each
                epoch, which NumPy's global seed
                (`keras.utils.set_random_seed`) decides; True by default, as
                in `keras.Model.fit`. A dataset is read in its own order.
            class_weight: dict from each class id to its weight. For scores,
                the class of a row is that of its largest score. A row without
                scores counts as class 0: give it a `sample_weight` of 0.
            sample_weight: `(samples,)`, if `x` is arrays.
            **kwargs: as in `keras.Model.fit`.

        Returns: `keras.callbacks.History`.

        Raises:
            ValueError: data that do not fit the task or each other, or the
                trainable weights changed since the last `compile`.
        """
        self._check_place()
        check_trained(self)
        kwargs |= dict(
            epochs=epochs, verbose=verbose, class_weight=class_weight
        )
        steps = Steps(getattr(self, "optimizer", None))
        data = x, y, sample_weight
        validation = validation_data, validation_split
        with data_path.for_training(
            self, steps, data, validation, batch_size, shuffle, kwargs
        ) as sources:
            # Compiled steps take over the memory of the weights. Eager steps
            # do not: the values kept here would be a copy of all weights.
            kept = contextlib.nullcontext()
            if self.jit_compile and not self.run_eagerly:
                kept = backend_ops.kept_weights(self, trains=True)
            with self.inference.training("fit"), kept:
                keras_training.forget_continued(self)
                kwargs["callbacks"] = _with_callback(callbacks, steps)
                return self._keras("fit", **sources, **kwargs)

    def evaluate(
        self,
        x=None,
        y=None,
        batch_size=None,
        verbose="auto",
        sample_weight=None,
        **kwargs,
    ):
        """Compute loss and metrics on raw inputs or features.

        Random draws of the preprocessor depend on its seed and on the number
        of the batch: they are the same in each call.

        Args:
            x, y, batch_size, verbose, sample_weight: as in `fit`.
            **kwargs: as in `keras.Model.evaluate`.
        """
        self._check_place()
        # Validation data are prepared by `fit`.
        if not kwargs.get("_use_cached_eval_dataset"):
            x = data_path.prepared(self, x, y, sample_weight, batch_size)
        with (
            self.inference.testing("evaluate"),
            backend_ops.kept_weights(self),
            data_path.reading(self, x) as source,
        ):
            found = self._keras("evaluate", source, verbose=verbose, **kwargs)
        strategy.current().check_order()
        return found

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        self._check_place()
        x = data_path.prepared(self, x, size=batch_size, labelled=False)
        nothing = data_path.without_rows(self, x)
        if nothing is not None:
            return nothing
        sizes = _Sizes()
        with (
            self.inference.predicting("predict"),
            backend_ops.kept_weights(self),
        ):
            with data_path.reading(self, x) as source:
                callbacks = _with_callback(callbacks, sizes)
                given = dict(verbose=verbose, steps=steps, callbacks=callbacks)
                outputs = self._keras("predict", source, **given)
            strategy.current().check_order()
            return strategy.current().gather_predictions(x, outputs, sizes.rows)

    def train_on_batch(
        self, x, y=None, sample_weight=None, class_weight=None, **kwargs
    ):
        """Train on one batch, as `keras.Model.train_on_batch`.

        Random draws depend on the number of training steps so far, as in
        `fit`.
        """
        self._check_place()
        check_trained(self)
        batch_checks.check_batch(self, y, class_weight=class_weight)
        first = Steps(getattr(self, "optimizer", None)).first
        batch = self._prepared(x, y, sample_weight, first)
        kwargs["class_weight"] = class_weight
        with self.inference.training("train_on_batch"):
            return self._keras("train_on_batch", *batch, **kwargs)

    def test_on_batch(self, x, y=None, sample_weight=None, **kwargs):
        """Compute loss and metrics of one batch, as the first of `evaluate`."""
        batch_checks.check_batch(self, y)
        batch = self._prepared(x, y, sample_weight)
        with self.inference.testing("test_on_batch"):
            return self._keras("test_on_batch", *batch, **kwargs)

    def predict_on_batch(self, x):
        """Return the outputs for one batch, as the first of `predict`."""
        features, _, _ = self._prepared(x)
        with self.inference.predicting("predict_on_batch"):
            return self._keras("predict_on_batch", features)

    def _keras(self, method, *args, **kwargs):
        return strategy.current().run(method, self, *args, **kwargs)

    def _prepared(self, *batch):
        # KerasHub's version fails with labels of several objectives.
        return keras.utils.unpack_x_y_sample_weight(
            data_path.prepared_batch(self, *batch)
        )

    def train_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().train_step(*args)

    def test_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().test_step(*args)

    def predict_step(self, *args):
        return strategy.current().readable_outputs(super().predict_step(*args))

    def _check_place(self):
        # Keras itself refuses to train a task that was never compiled.
        now = strategy.current().place
        place = getattr(self, "_place", now)
        if place != now:
            raise BuiltElsewhere(
                f"{self.name!r}, compiled for {place}, to run on {now}"
            )

    def preprocess_samples(self, x, y=None, sample_weight=None):
        # A preprocessor has checked the features that it computed.
        if self.preprocessor is None and isinstance(x, dict):
            batch_checks.check_values(self, x, y)
        return super().preprocess_samples(x, y, sample_weight)


class _Sizes(keras.callbacks.Callback):
    """Counts the rows of each batch that is predicted."""

    def __init__(self):
        super().__init__()
        self.rows = []

    def on_predict_batch_end(self, batch, logs=None):
        # Keras flattens a dict of outputs into the logs, and passes outputs
        # of one value as numbers.
        first = keras.tree.flatten(logs)[0]
        self.rows.append(len(first) if getattr(first, "shape", ()) else 1)


def _with_callback(callbacks, own):
    """Return callbacks as Keras takes them, with one more."""
    if isinstance(callbacks, keras.callbacks.CallbackList):
        callbacks.append(own)
        return callbacks
    return [own, *(c for c in keras.tree.flatten(callbacks) if c is not None)]


def _has_embeddings(outputs):
    return isinstance(outputs, dict) and "itc" in outputs


def _check_reads_logits(loss):
    """Raise for a cross-entropy that would take logits for probabilities."""
    for one in keras.tree.flatten(loss):
        named = isinstance(one, str)
        name = one.title().replace("_", "") if named else type(one).__name__
        named = named and name.endswith("Crossentropy")
        if named or getattr(one, "from_logits", None) is False:
            raise ValueError(
                "`loss` must read logits. Leave it out, or pass "
                f"`keras.losses.{name}(from_logits=True)`. "
                f"Received: loss={one!r:.100}"
            )


def _check_targets(loss, y, y_pred):
    """Raise if a sparse loss gets scores, or another loss gets class ids."""
    one_hot = isinstance(loss, keras.losses.CategoricalCrossentropy)
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy) or one_hot:
        ids = len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1
        if ids == one_hot:
            fit = "SparseCategorical" if ids else "Categorical"
            raise ValueError(
                f"`loss` must take targets of shape {tuple(y.shape)}. Leave it "
                f"out, or pass `keras.losses.{fit}Crossentropy("
                f"from_logits=True)`. Received: loss={loss.name!r}"
            )


def _share_without_padding(weights):
    """Return the share of rows of the global batch that are not padding.

    Args:
        weights: float tensor `(batch, 1)`, or a nested structure of them.

    Returns:
        Scalar tensor, or None without weights.
    """
    given = [w for w in keras.tree.flatten(weights) if w is not None]
    if not given:
        return None
    padding = ops.all(ops.stack([losses.is_padding(w) for w in given]), axis=0)
    everywhere, _ = backend_ops.all_gather(ops.cast(padding, "float32"))
    return 1 - ops.mean(everywhere)


def layers_not_read(fusion, outputs):
    """Return the layers of a fusion on which none of `outputs` depends.

    Args:
        fusion: a `CrossModalEncoder`.
        outputs: tuple of the names of its outputs that are read, if any.
    """
    if outputs == ("text",):
        poolers = [fusion.text_pooler, fusion.image_pooler]
        return poolers + list(fusion.steps[-1].image_only)
    return [] if outputs else [fusion]
