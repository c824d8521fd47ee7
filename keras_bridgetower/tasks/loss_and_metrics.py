"""What a task learns: its loss, its metrics, and the weights that take part."""

import keras
import keras_hub
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import devices
from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.training import loss_means
from keras_bridgetower.backend.keras_private.training import (
    with_public_optimizers,
)
from keras_bridgetower.checks import MissingMethod
from keras_bridgetower.objectives.losses import is_padding
from keras_bridgetower.objectives.losses import weight_column

_WITHOUT_SLOTS = "optimizer_without_slots"


class CompiledTask(keras_hub.models.Task):
    """Abstract: a task with a loss and metrics, set by `compile`.

    Loss and metrics may see labels and outputs in another form than `predict`
    gives them; hooks say in which.
    """

    def default_loss(self):
        """The loss that `compile` uses by default."""
        raise MissingMethod(type(self).__name__, "default_loss")

    def default_metrics(self):
        """The metrics that `compile` uses by default."""
        raise MissingMethod(type(self).__name__, "default_metrics")

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
                `keras_bridgetower.training.AdamW` with rows, or a recipe. With
                `gradient_accumulation_steps` schedules count updates.
            loss: a Keras loss of logits; by default the task's. See `fit` for
                how rows are weighed.
            metrics: list of metrics. By default the task's, and those as
                `weighted_metrics` where none are given: rows of weight 0
                do not count.
            weighted_metrics: list of metrics, which sample weights weigh.
            **kwargs: as `keras.Model.compile`.
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
        devices.current().prepare(self)
        self._place = devices.current().place

    def get_metrics_result(self):
        with devices.current().summed(self.metrics_variables):
            return super().get_metrics_result()

    def compute_loss(
        self, x=None, y=None, y_pred=None, sample_weight=None, training=True
    ):
        first = keras.tree.flatten(y_pred)[0]
        weights = keras.tree.map_structure(
            lambda weights: weight_column(weights, first.shape[0]),
            sample_weight,
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
        # Keras weighs the batches of an epoch by rows that are padding too,
        # and, where TensorFlow does not know their number, the losses of heads
        # by no number at all.
        share = 1.0 if share is None else share
        rows = ops.cast(ops.shape(first)[0], "float32")
        before = {}
        for mean in loss_means(self)[1]:
            before[id(mean)] = [ops.add(v, 0) for v in mean.variables]
            mean.reset_state()
        loss = super().compute_loss(x, y, y_pred, weights, training)
        total, heads = loss_means(self)
        for mean in heads:
            of_batch = mean.result()
            old = before.get(id(mean), (0, 0))
            for variable, value in zip(mean.variables, old, strict=True):
                variable.assign(value)
            mean.update_state(of_batch, sample_weight=rows * share)
        # Keras adds this batch with all its rows afterwards.
        replicas = devices.current().count
        scaled = replicas if keras.config.backend() == "tensorflow" else 1
        total.update_state(loss * scaled, sample_weight=rows * (share - 1))
        return loss

    def compute_metrics(self, x, y, y_pred, sample_weight=None):
        y, y_pred = self.metric_inputs(y, y_pred)
        return super().compute_metrics(x, y, y_pred, sample_weight)

    def get_compile_config(self):
        config = super().get_compile_config()
        if config and not getattr(self.optimizer, "built", True):
            # Keras would warn that slots, which are not there, do not fit.
            config[_WITHOUT_SLOTS] = True
        return config

    def compile_from_config(self, config):
        config = with_public_optimizers(config)
        without_slots = config.pop(_WITHOUT_SLOTS, False)
        self.compile(**keras.saving.deserialize_keras_object(config))
        if not without_slots:
            precision.build_once(self.optimizer, self.trainable_variables)


def _check_reads_logits(loss):
    """Raise for a cross-entropy that takes logits for probabilities."""
    for one in keras.tree.flatten(loss):
        name = type(one).__name__
        if isinstance(one, str):
            name = one.title().replace("_", "")
        named = isinstance(one, str) and name.endswith("Crossentropy")
        if named or getattr(one, "from_logits", None) is False:
            raise ValueError(
                "`loss` must read logits, which the task returns. Leave it "
                "out for the task's own loss, or pass "
                f"`keras.losses.{name}(from_logits=True)`. "
                f"Received: loss={one!r:.100}"
            )


def _check_targets(loss, y, y_pred):
    """Raise if a loss of class ids is given scores, or one of scores ids."""
    one_hot = isinstance(loss, keras.losses.CategoricalCrossentropy)
    if isinstance(loss, keras.losses.SparseCategoricalCrossentropy) or one_hot:
        ids = len(y.shape) < len(y_pred.shape) or y.shape[-1] == 1
        if ids == one_hot:
            fit = "SparseCategorical" if ids else "Categorical"
            raise ValueError(
                f"`loss` must take targets of shape {tuple(y.shape)} for "
                f"outputs of shape {tuple(y_pred.shape)}. Leave it out for the "
                "task's own loss, or pass "
                f"`keras.losses.{fit}Crossentropy(from_logits=True)`. "
                f"Received: loss={loss.name!r}"
            )


def _share_without_padding(weights):
    """Return the share of rows of the global batch that are no padding.

    Args:
        weights: float tensor `(batch, 1)`, or a nested structure of them.

    Returns:
        Scalar tensor, or None without weights.
    """
    given = [w for w in keras.tree.flatten(weights) if w is not None]
    if not given:
        return None
    padding = ops.all(ops.stack([is_padding(w) for w in given]), axis=0)
    everywhere, _ = backend_ops.all_gather(ops.cast(padding, "float32"))
    return 1 - ops.mean(everywhere)


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
