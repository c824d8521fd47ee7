"""The base class of all tasks: a backbone, a preprocessor and heads."""

import keras

from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend.keras_private.layers import training_set
from keras_bridgetower.backend.keras_private.models import PatchedModel
from keras_bridgetower.checks import MissingMethod
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_constructor
from keras_bridgetower.models import head_table
from keras_bridgetower.models.adapters import AdaptedTask
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.checks import check_features
from keras_bridgetower.models.checks import check_preprocessor
from keras_bridgetower.models.exporting.exported import Exported
from keras_bridgetower.models.heads import divide_logits
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.presets.table import PresetsOf
from keras_bridgetower.tasks import inference
from keras_bridgetower.tasks import preset_io
from keras_bridgetower.tasks.fit import data_path
from keras_bridgetower.tasks.trainable import TrainableTask


# Keras replaces `Model` by `Functional` among the bases of all these classes.
# `Exported` is last because KerasHub's classes undo this replacement.
def check_made_for(preprocessor, **values):
    """Reject a preprocessor that was made with other values than its task."""
    made = {name: getattr(preprocessor, name, None) for name in values}
    if preprocessor is not None and made != values:
        raise ValueError(
            f"`preprocessor` must have the {values} of the task. Received: "
            f"preprocessor with {made}"
        )


class BridgeTowerTask(
    PatchedModel, AdaptedTask, preset_io.PresetTask, TrainableTask, Exported
):
    """Abstract: a backbone, a preprocessor and a head, ready to train.

    A subclass names its `preprocessor_cls` and its heads, calls them in
    `outputs_of`, and defines `head_arguments`, `default_loss`,
    `default_metrics` and its verbs. `docs/own_work.md` has an example.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a preprocessor of the task, or None: then `fit`,
            `predict` and `evaluate` take features.
        heads: dict from the name of a head (see `head_table`) to its plain
            values.
        **kwargs: `name`, `compile`.
    """

    backbone_cls = BridgeTowerBackbone
    presets = PresetsOf()
    # Constructor values that the preprocessor takes too.
    label_arguments = ()
    # Constructor arguments that `get_config` adds: attributes of these names.
    config_arguments = ()
    # The head whose values are the constructor's, if there is one.
    head_name = None
    # The classes' names in the order of the logits, if they have names.
    class_names = None
    # Name of the task in commands, such as "vqa"; None for base classes.
    task_name = None
    # `Verb`s: the methods that applications may call.
    verbs = ()
    # Constructor values of a task that a `Recipe` trains, and the fields that
    # hold them; "labels" are those of the data.
    recipe_arguments = {}

    def __init__(self, backbone, preprocessor, heads, **kwargs):
        check_constructor(self, kwargs, ("name", "compile", "trainable"))
        inputs = self.inputs_of(backbone)
        if preprocessor is not None:
            check_preprocessor(backbone, preprocessor, inputs)
        # === Layers ===
        # Not tracked as a layer (KerasHub does not either on torch), so that
        # a task has only the weights that its graph uses.
        object.__setattr__(self, "_backbone", backbone)
        object.__setattr__(self, "inference", inference.Inference(self))
        self.preprocessor = preprocessor
        # Tracked below, after the layers of the graph, on every backend:
        # optimizers number their slots in this order.
        object.__setattr__(self, "heads", head_table.make_all(heads, backbone))
        object.__setattr__(self, "new_heads", preset_io.NewHeads(self.heads))
        values = heads.get(self.head_name, {})
        for name in set(values) & set(self.config_arguments):
            setattr(self, name, values[name])
        # === Functional graph ===
        super().__init__(
            inputs=inputs, outputs=self.outputs_of(inputs), **kwargs
        )
        # The symbolic graph may not reach all heads.
        self.heads = self.heads
        # === Config ===
        self.head_values = heads

    def inputs_of(self, backbone):
        """Return symbolic inputs that match the preprocessor's features."""
        return backbone.input

    def outputs_of(self, inputs):
        """Compute the outputs of the task for a dict of features.

        By default those of the head `head_name`, of the pooled representation.
        """
        if self.head_name is None:
            raise MissingMethod(type(self).__name__, "outputs_of")
        pooled = self.backbone.fuse(inputs, outputs=("pooled",))["pooled"]
        return self.heads[self.head_name](pooled)

    @property
    def answering_heads(self):
        """Return the names of the heads that the verbs read."""
        return tuple(self.heads)

    def start_heads(self, new):
        """Initialize new heads from others, if the task defines how.

        Args:
            new: set of the names of heads that are still random.

        Returns:
            Those that stay random.
        """
        return new

    def divide_logits(self, head, temperature):
        """Divide the logits of a head by a temperature, for honest scores.

        The head's last layer gets smaller weights. So all scores, presets and
        exports have the temperature, and the order of results stays.

        Args:
            head: str, name of a head with logits, such as `"vqa"`.
            temperature: number above 0, as `metrics.fit_temperature` returns.

        Raises:
            ValueError: another head or number, or a quantized head.

        Example:

        ```python
        logits = vqa.predict(data)
        vqa.divide_logits("vqa", kbt.metrics.fit_temperature(logits, labels))
        ```
        """
        check_choice("head", head, tuple(self.heads))
        divide_logits(self.heads[head], temperature)

    @classmethod
    def head_arguments(cls, heads):
        """Return constructor values that fit the heads of a preset.

        Args:
            heads: dict from name to plain values, as `heads.json` holds it.

        Returns:
            dict of keyword arguments.
        """
        if cls.head_name is None:
            raise MissingMethod(cls.__name__, "head_arguments")
        saved = heads.get(cls.head_name, {})
        return {
            name: saved[name]
            for name in cls.config_arguments
            if saved.get(name) is not None
        }

    def call(self, inputs, training=None, mask=None):
        # Keras would replay the symbolic graph, in which a weight that is
        # read outside its layer is a constant.
        with training_set(self, training):
            return self.outputs_of(inputs)

    def compute_output_spec(self, inputs, training=None, mask=None):
        # The shapes of the graph. Keras would probe with 83 tokens, for which
        # an encoder may have no positions.
        return keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype),
            self.outputs_of(inputs),
        )

    def __call__(self, inputs, *args, **kwargs):
        parts = self.backbone, self.preprocessor
        check_features(inputs, self.input, *parts)
        return super().__call__(inputs, *args, **kwargs)

    def needed_preprocessor(self):
        """Return the preprocessor, or raise an error without one."""
        if self.preprocessor is None:
            raise ValueError(
                "`preprocessor` must be set to take pictures and strings; or "
                "call `predict_features`. Received: preprocessor=None"
            )
        return self.preprocessor

    def check_request(self, texts=(), top_k=1):
        """Raise a ValueError unless the verb accepts the texts and `top_k`.

        Args:
            texts: list of str, or empty.
            top_k: int, results per row.
        """
        checked_texts(list(texts))

    def outputs_for(
        self, verb, images, texts, batch_size=32, texts_name="texts"
    ):
        """Compute the outputs for pictures and texts, for a verb of a task.

        Args:
            verb: str, the name of the method, for errors.
            images: one picture or a list.
            texts: one text or a list. A single picture or text that is not in
                a list is used with every other.
            batch_size: int, pairs per forward pass.
            texts_name: str, the name of the parameter of the texts.

        Returns:
            NumPy arrays, as `predict` returns them; without the batch axis if
            neither came in a list.

        Raises:
            ValueError: no preprocessor, an untrained head, different numbers
                of pictures and texts, or unreadable ones.
        """
        sources = self.sources(images, texts, texts_name)
        return keras.tree.map_structure(
            lambda x: verb_inputs.one_or_all(x, sources),
            self._run(verb, sources, batch_size),
        )

    def predict_features(self, features, batch_size=32):
        """Compute the outputs for features of a preprocessor.

        Unlike `predict` it may be called from several threads at once.

        Args:
            features: dict of arrays with a batch axis.
            batch_size: int, rows per forward pass.

        Returns:
            NumPy arrays, as `predict` gives them.

        Raises:
            RuntimeError: another thread trains this task.
        """
        source = verb_inputs.Features("features", features)
        given = source.features(0, source.count)
        check_features(given, self.input, self.backbone, self.preprocessor)
        if not source.count:
            shapes = {name: given[name].shape for name in self.input}
            return data_path.no_predictions(self, shapes)
        # Drawn features refer to other rows of the batch: add no rows.
        fill = not set(features) - set(self.input)
        batches = self.batches(
            "predict_features", [source], batch_size, answers=False, fill=fill
        )
        return inference.joined(batches)

    def sources(self, images, texts, name):
        """Return the sources of a verb's pictures and texts.

        Args:
            images, texts: one or several of each.
            name: str, what the verb calls the texts.

        Returns:
            List of `Pictures` and `Texts`.
        """
        preprocessor = self.needed_preprocessor()
        verb_inputs.check_order(images, texts, name)
        return [
            verb_inputs.Pictures(preprocessor, images),
            verb_inputs.Texts(preprocessor, texts, name),
        ]

    def batches(
        self, name, sources, batch_size, answers=True, forward=None, **kwargs
    ):
        """Run the task on sources, batch by batch.

        Args:
            name: str, the verb that is called.
            sources, batch_size, **kwargs: as `Inference.in_batches`.
            answers: bool, whether the heads that it reads must be trained.
            forward: `Forward` of what is run, by default of the whole task.

        Yields:
            `(features, outputs)`, dict of arrays and NumPy arrays.
        """
        if forward is None:
            forward = self.inference.cached(
                "forward", lambda: self.inference.forward(self)
            )
        with self.inference.reading(name):
            if answers:
                self.new_heads.check(name, self.answering_heads)
            yield from self.inference.in_batches(
                forward, sources, batch_size, **kwargs
            )

    def _run(self, verb, sources, batch_size, repeat=True, forward=None):
        """Return all outputs of a verb; a single item is used with others."""
        verb_inputs.check_numbers(sources, repeat)
        buckets = self.needed_preprocessor().buckets
        values = {"buckets": buckets, "forward": forward}
        return inference.joined(
            self.batches(verb, sources, batch_size, **values)
        )

    def summary(self, *args, **kwargs):
        """Print the layers, as `keras.Model.summary`."""
        # KerasHub expects (height, width); our converter has one integer.
        keras.Model.summary(self, *args, **kwargs)

    def get_config(self):
        heads = {name: self.heads[name] for name in self.heads}
        policy = self.backbone.fusion.dtype_policy
        quantized, frozen = (
            {name: read(head) for name, head in heads.items() if read(head)}
            for read in (layer_records.quantized_layers, _frozen)
        )
        kept = {
            layer_records.POLICIES: layer_records.changed_policies(
                self.heads, policy
            ),
            layer_records.QUANTIZED: quantized,
            preset_io.NEW_HEADS: self.new_heads.saved(),
            layer_records.FROZEN: frozen,
        }
        config = super().get_config()
        if not self.trainable:
            config["trainable"] = False
        config |= {k: values for k, values in kept.items() if values}
        return config | {n: getattr(self, n) for n in self.config_arguments}

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        changed = config.pop(layer_records.POLICIES, None)
        quantized = config.pop(layer_records.QUANTIZED, {})
        new = config.pop(preset_io.NEW_HEADS, {})
        frozen = config.pop(layer_records.FROZEN, {})
        task = super().from_config(config)
        layer_records.restore_policies(task.heads, changed)
        for name in task.heads:
            head = task.heads[name]
            layer_records.quantize_as(head, quantized.get(name))
            layer_records.restore_frozen(
                head, {layer_records.FROZEN: frozen.get(name)}, (head,)
            )
        task.new_heads.restore(new)
        return task


def _frozen(head):
    return layer_records.frozen_state(head).get(layer_records.FROZEN)
