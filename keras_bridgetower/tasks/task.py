"""The base class of all tasks: a backbone, a preprocessor and heads."""

import contextlib
import os
import shutil
from collections import abc

import keras
import keras_hub
from keras import ops

from keras_bridgetower import checks
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private import training as keras_training
from keras_bridgetower.backend.keras_private.layers import training_set
from keras_bridgetower.backend.keras_private.models import PatchedModel
from keras_bridgetower.backend.keras_private.updates import check_trained
from keras_bridgetower.distribution import strategy
from keras_bridgetower.models import adapters
from keras_bridgetower.models import head_table
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.checks import check_features
from keras_bridgetower.models.checks import check_preprocessor
from keras_bridgetower.models.exporting import runtime
from keras_bridgetower.models.exporting.exported import Exported
from keras_bridgetower.models.heads import divide_logits
from keras_bridgetower.objectives import losses
from keras_bridgetower.objectives.pair_objectives import with_packed
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.preprocessing.packed_tokenizer import ASSETS
from keras_bridgetower.preprocessing.preprocessor import OF_PREPROCESSORS
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.table import PresetsOf
from keras_bridgetower.tasks import from_preset
from keras_bridgetower.tasks import inference
from keras_bridgetower.tasks import keep_states
from keras_bridgetower.tasks.fit import batch_checks
from keras_bridgetower.tasks.fit import data_path

# Constructor values that no caller of `from_preset` gives.
OF_BASES = ("backbone", *checks.OF_CLASSES)
# Keras' own, which no task's constructor names.
OF_MODELS = ("compile", "trainable")
# Files beside an exported model: a description, and a program that runs it.
DESCRIPTION = "export.json"
RUNNER = "run.py"
_WITHOUT_SLOTS = "optimizer_without_slots"


def check_made_for(preprocessor, **values):
    """Reject a preprocessor that was made with other values than its task."""
    made = {name: getattr(preprocessor, name, None) for name in values}
    if preprocessor is not None and made != values:
        raise ValueError(
            f"`preprocessor` must have the {values} of the task. Received: "
            f"preprocessor with {made}"
        )


# Keras replaces `Model` by `Functional` among the bases of all these classes.
# `Exported` is last because KerasHub's classes undo this replacement.
class BridgeTowerTask(PatchedModel, keras_hub.models.Task, Exported):
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
        awaited: heads that a preset holds and their largest number of
            weights, as for `head_table.make_all`. They are not initialized.
        **kwargs: `name`, `compile`.
    """

    backbone_cls = BridgeTowerBackbone
    presets = PresetsOf()
    # Constructor values that the preprocessor takes too.
    label_arguments = ()
    # Shape of the pictures of one text: none, or one axis of this size.
    pictures = ()
    # Names of int32 inputs `(batch, places)` besides those of the backbone.
    token_inputs = ()
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

    def __init__(self, backbone, preprocessor, heads, awaited=None, **kwargs):
        checks.check_constructor(self, kwargs, ("name", "compile", "trainable"))
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
        made = head_table.make_all(heads, backbone, awaited)
        object.__setattr__(self, "heads", made)
        object.__setattr__(self, "new_heads", from_preset.NewHeads(self.heads))
        values = heads.get(self.head_name, {})
        for name in set(values) & set(self.config_arguments):
            setattr(self, name, values[name])
        # === Functional graph ===
        super().__init__(
            inputs=inputs, outputs=self.outputs_of(inputs), **kwargs
        )
        # `check_features` accepts states in place of pictures, Keras would not.
        self.input_spec = None
        # The symbolic graph may not reach all heads.
        self.heads = self.heads
        # === Config ===
        self.head_values = heads

    def inputs_of(self, backbone):
        """Return symbolic inputs that match the preprocessor's features."""
        inputs = dict(backbone.input)
        if self.pictures:
            shape = (*self.pictures, *inputs["images"].shape[1:])
            inputs["images"] = keras.Input(shape, name="images")
        for name in self.token_inputs:
            inputs[name] = keras.Input((None,), dtype="int32", name=name)
        return inputs

    def outputs_of(self, inputs):
        """Compute the outputs of the task for a dict of features.

        By default those of the head `head_name`, of the pooled representation.
        """
        if self.head_name is None:
            raise checks.MissingMethod(type(self).__name__, "outputs_of")
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
            set of the names that stay random.
        """
        return new

    @classmethod
    def head_arguments(cls, heads):
        """Return constructor values that fit the heads of a preset.

        Args:
            heads: dict from name to plain values, as `heads.json` holds it.

        Returns:
            dict of keyword arguments.
        """
        if cls.head_name is None:
            raise checks.MissingMethod(cls.__name__, "head_arguments")
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

    def summary(self, *args, **kwargs):
        """Print the layers, as `keras.Model.summary`."""
        # KerasHub expects (height, width); our converter has one integer.
        keras.Model.summary(self, *args, **kwargs)

    # --- Presets and files. ---

    @classmethod
    def from_preset(
        cls,
        preset,
        load_weights=True,
        image_size=None,
        image_mode=None,
        sequence_length=None,
        dtype=None,
        revision=None,
        random_heads=False,
        image_tokens=None,
        **kwargs,
    ):
        """Open a task from a preset, or from weights of another library.

        Args:
            preset: a name of `presets`, a handle such as
                `"hf://user/model"`, or the path of a preset folder, of a
                `transformers` folder or of a checkpoint file of the authors.
            load_weights: bool, whether to load weights or leave them at
                their random start.
            image_size: int; learned positions are resized.
            image_mode: str, how the image converter makes a square of a
                picture.
            sequence_length: int, tokens in each text.
            dtype: a Keras dtype policy or its name.
            revision: str, branch, tag or commit of a handle's repository.
            random_heads: bool. Heads that the preset lacks are new: a warning
                says so, and verbs raise until they are trained. With True
                neither happens.
            image_tokens: int, tokens of a picture that remain after merging
                before the fusion: faster, and less exact. None for the
                preset's own value.
            **kwargs: `preprocessor`, and constructor values of the class.

        Raises:
            TypeError: an unknown keyword.
            ValueError: no such preset, files that were changed or are
                damaged, or values that this task does not read.
        """
        for name, value in kwargs.items():
            if isinstance(value, abc.Iterator):
                # Both the preprocessor and the task read it.
                kwargs[name] = list(value)
        given = {k: v for k, v in kwargs.items() if k not in OF_MODELS}
        others = {"dtype", "random_heads", *OF_PREPROCESSORS}
        others |= {*checks.OF_PRESETS, *OF_MODELS}
        checks.check_keywords(cls, given, others, without=OF_BASES)
        parts = {"image_mode": image_mode, "sequence_length": sequence_length}
        passed = "preprocessor" in kwargs
        unread = {k: v for k, v in parts.items() if v}
        if passed and unread:
            raise ValueError(
                f"{sorted(unread)} must be left out where `preprocessor` is "
                f"passed. Received: {unread}"
            )
        folder = registry.open_preset(preset, revision)
        saved = head_table.saved_heads(folder)
        own = from_preset.saved_values(cls, folder, saved)
        values = {**own, **kwargs}
        merged = {}
        if image_tokens is not None:
            merged = {"image_tokens": image_tokens}
        backbone = cls.backbone_cls.from_preset(
            folder, load_weights, image_size=image_size, dtype=dtype, **merged
        )
        if not passed:
            parts["image_size"] = image_size
            own["preprocessor"] = from_preset.build_preprocessor(
                cls, folder, parts, values, backbone
            )

        awaited = (saved, folder.room_for_heads()) if load_weights else None
        model = folder.create(
            weights_file.TASK,
            lambda values: cls(backbone=backbone, awaited=awaited, **values),
            own,
            kwargs,
        )
        if merged and not {"images", "padding_mask"} <= set(model.input):
            raise ValueError(
                f"`image_tokens` must be None for {cls.__name__}, which does "
                f"not run the fusion. Received: image_tokens={image_tokens!r}"
            )
        if load_weights:
            # Other answers or sizes than the preset's make a new head.
            changed = bool(set(given) - {"name"}) or passed
            from_preset.load_heads(model, folder, saved, random_heads, changed)
        return model

    @classmethod
    def from_encoders(
        cls,
        image_encoder,
        text_encoder,
        image_size=None,
        sequence_length=None,
        with_classifier=False,
        **kwargs,
    ):
        """Build a task on two pre-trained encoders.

        Pictures are normalized, and texts tokenized, as the encoders were
        trained. The fusion and the heads are newly initialized: verbs raise
        until they are trained.

        Args:
            image_encoder: a KerasHub preset such as `"dinov2_base"`, a handle
                `"hf://user/model"`, or the path of a `transformers` folder.
            text_encoder: the same, such as `"hf://xlm-roberta-base"`.
            image_size: int, side of the pictures in pixels; learned positions
                are resized. By default that of the encoder.
            sequence_length: int, tokens in each text.
            with_classifier: bool, whether the image encoder keeps the linear
                classifier of its files, see `ClassifiedEncoder`.
            **kwargs: constructor values of `BridgeTowerBackbone`, such as
                `hidden_dim` and `bridge`, and of this class.

        Raises:
            TypeError: an unknown keyword.
            ValueError: an encoder without a rule, files that are damaged or
                of another kind, or values that do not fit.

        Example:

        ```python
        vqa = kbt.BridgeTowerVQA.from_encoders(
            "hf://google/siglip2-base-patch16-256",
            "hf://FacebookAI/xlm-roberta-base",
            answers=["yes", "no"],
        )
        ```
        """
        own = checks.constructor_values(cls) - {*OF_BASES}
        values = {k: v for k, v in kwargs.items() if k in own}
        # The backbone rejects what neither of them takes.
        fusion = {k: v for k, v in kwargs.items() if k not in own}
        made = cls.preprocessor_cls
        names = [
            name
            for name in ("tokenizer", "image_converter")
            if getattr(made, f"{name}_cls") is not None
            and "preprocessor" not in values
        ]
        if "preprocessor" in values and sequence_length is not None:
            raise TypeError(
                "`sequence_length` must not be passed beside `preprocessor`, "
                "whose tokenizer has one. Received: "
                f"sequence_length={sequence_length!r}"
            )
        parts = registry.open_encoders(
            image_encoder,
            text_encoder,
            image_size,
            sequence_length,
            kwargs.get("text_summary"),
            names,
            with_classifier,
        )
        backbone = cls.backbone_cls(
            parts.image_encoder,
            parts.text_encoder,
            **fusion | {"text_summary": parts.text_summary},
        )
        if "preprocessor" not in values:
            read = {name: getattr(parts, name) for name in names}
            read |= {k: values[k] for k in cls.label_arguments if k in values}
            values["preprocessor"] = made(
                **read, **from_preset.features(cls, backbone)
            )
        model = cls(backbone, **values)
        model.new_heads.note(model.start_heads(set(model.head_values)))
        return model

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Save the task to a new preset folder, with a manifest.

        Args:
            preset_dir: path of a folder that does not exist yet, or its URL
                in an object store, such as `"s3://bucket/preset"`.
            max_shard_size: number, largest weight file in GB.

        Raises:
            ValueError: the folder exists.
        """
        layer_records.check_one_policy(self, self.backbone)

        def save(folder):
            write_task(folder, max_shard_size)
            registry.drop_frozen_state(folder)
            heads = os.path.join(folder, weights_file.TASK_WEIGHTS)
            weights_file.make_dense(heads)
            random = self.new_heads.still_random(self.head_values)
            held = {
                k: v for k, v in self.head_values.items() if k not in random
            }
            registry.write_json(folder, registry.HEADS, held)

        write_task = super().save_to_preset
        registry.write(preset_dir, save)

    def save_task_weights(self, filepath):
        """Save the heads' weights to a `.weights.h5` file."""
        # KerasHub's own method would put the optimizer beside them.
        self.heads.save(filepath)

    def load_task_weights(self, filepath):
        """Load a file of `save_task_weights`."""
        self.heads.load(filepath)

    def export_to_transformers(self, path):
        """Write a folder that `transformers` opens with `from_pretrained`.

        Tasks without a class there (VQA, entailment, NLVR2) become a
        `BridgeTowerModel`, with the head in `head.safetensors` beside it.

        Args:
            path: path of a folder that does not exist yet.

        Raises:
            ConversionError: transformers cannot run this architecture.
        """
        registry.export(self, path)

    def _write_companions(self, folder, chosen, part):
        described = {
            "task": type(self).__name__,
            "part": part,
            # Of a part the outputs are no logits.
            "class_names": None if part else self.class_names,
            "rejection": None if part else getattr(self, "rejection", None),
        }
        if self.preprocessor is not None:
            self.preprocessor.save_to_preset(str(folder))
            tokenizer = self.preprocessor.tokenizer
            if chosen.runs:
                shutil.copyfile(runtime.__file__, folder / RUNNER)
            if chosen.runs and tokenizer is not None:
                described["special_token_ids"] = tokenizer.special_token_ids[:3]
                tokenizer.save_engine(folder / ASSETS)
        registry.write_json(folder, DESCRIPTION, described)

    def enable_lora(self, rank, target_layer_names=None):
        """Train low-rank adapters of the backbone's attention, and the head.

        All other weights of the backbone are frozen. Call this before
        training starts.

        Args:
            rank, target_layer_names: as `backbone.enable_lora`.
        """
        self.backbone.enable_lora(rank, target_layer_names)

    def save_lora_weights(self, filepath):
        """Save the adapters of the backbone, and the heads.

        Args:
            filepath: path of the new file.

        Raises:
            ValueError: no adapters.

        Example:

        ```python
        vqa.enable_lora(rank=4)
        vqa.fit(x, y)
        vqa.save_lora_weights("mine.lora.h5")
        # Later, in the same preset with the same answers:
        vqa.load_lora_weights("mine.lora.h5")
        ```
        """
        adapters.save_with_heads(self, filepath)

    def load_lora_weights(self, filepath):
        """Load a file of a task's `save_lora_weights`.

        Args:
            filepath: path of the file.

        Raises:
            ValueError: the file has no heads, or other heads or adapters than
                this task. Load the adapters of a backbone alone by
                `backbone.load_lora_weights`.
        """
        adapters.load_with_heads(self, filepath)

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
            from_preset.NEW_HEADS: self.new_heads.saved(),
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
        new = config.pop(from_preset.NEW_HEADS, {})
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

    # --- The loss and the metrics of a task. ---

    def default_loss(self):
        """Return the loss that `compile` uses by default."""
        raise checks.MissingMethod(type(self).__name__, "default_loss")

    def default_metrics(self):
        """Return the metrics that `compile` uses by default."""
        raise checks.MissingMethod(type(self).__name__, "default_metrics")

    def loss_inputs(self, y, y_pred):
        """Return labels and outputs in the form that the loss takes."""
        return y, with_packed(y_pred, self.heads)

    def metric_inputs(self, y, y_pred):
        """Return labels and outputs in the form that the metrics take."""
        # On JAX no weight can be read while metrics are updated.
        return y, with_packed(y_pred)

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
        return self._trained(self.weights)

    @property
    def trainable_variables(self):
        return self._trained(self.variables)

    def _trained(self, variables):
        # As in Keras. `torch.compile` cannot read properties of `super()`.
        if not self.trainable:
            return []
        layers = self.unread_layers()
        unread = {id(w) for layer in layers for w in layer.weights}
        return [v for v in variables if v.trainable and id(v) not in unread]

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
        batch_checks.check_reads_logits(loss)
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
        strategy.current().prepare(self)
        self._compiled_for = strategy.current().device_name
        self.inference.forget()

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
        batch_checks.check_targets(self.loss, y, y_pred)
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

    def get_metrics_result(self):
        with strategy.current().summed(self.metrics_variables):
            return super().get_metrics_result()

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

    # --- Passes over data, see fit/data_path.py. ---

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
        self._check_device()
        check_trained(self)
        kwargs |= dict(
            epochs=epochs, verbose=verbose, class_weight=class_weight
        )
        steps = data_path.Steps(getattr(self, "optimizer", None))
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
                kwargs["callbacks"] = data_path.with_callback(callbacks, steps)
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
        self._check_device()
        # Validation data are prepared by `fit`.
        if not kwargs.get("_use_cached_eval_dataset"):
            x = data_path.prepared(self, x, y, sample_weight, batch_size)
        with (
            self.inference.testing("evaluate"),
            backend_ops.kept_weights(self),
            data_path.open_source(self, x) as source,
        ):
            found = self._keras("evaluate", source, verbose=verbose, **kwargs)
        strategy.current().check_order()
        return found

    def predict(
        self, x, batch_size=None, verbose="auto", steps=None, callbacks=None
    ):
        self._check_device()
        x = data_path.prepared(self, x, size=batch_size, labelled=False)
        nothing = data_path.without_rows(self, x)
        if nothing is not None:
            return nothing
        sizes = data_path.Sizes()
        with (
            self.inference.predicting("predict"),
            backend_ops.kept_weights(self),
        ):
            with data_path.open_source(self, x) as source:
                callbacks = data_path.with_callback(callbacks, sizes)
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
        self._check_device()
        check_trained(self)
        batch_checks.check_batch(self, y, class_weight=class_weight)
        first = data_path.Steps(getattr(self, "optimizer", None)).first
        batch = self._prepared(x, y, sample_weight, first, trains=True)
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

    def make_train_function(self, force=False):
        return keras_training.make(self, super(), "train_function", force)

    def make_test_function(self, force=False):
        return keras_training.make(self, super(), "test_function", force)

    def make_predict_function(self, force=False):
        return keras_training.make(self, super(), "predict_function", force)

    def train_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().train_step(*args)

    def compute_loss_and_updates(
        self, trainable_variables, non_trainable_variables, *args, **kwargs
    ):
        # JAX's step. Weights that are split are gathered for it.
        gathered = strategy.current().gathered_weights
        return super().compute_loss_and_updates(
            gathered(trainable_variables, self.trainable_variables),
            gathered(non_trainable_variables, self.non_trainable_variables),
            *args,
            **kwargs,
        )

    def test_step(self, *args):
        with backend_ops.after_reading(args[-1]):
            return super().test_step(*args)

    def predict_step(self, *args):
        return strategy.current().readable_outputs(super().predict_step(*args))

    def preprocess_samples(self, x, y=None, sample_weight=None):
        # A preprocessor has checked the features that it computed.
        if self.preprocessor is None and isinstance(x, dict):
            batch_checks.check_values(self, x, y)
        return super().preprocess_samples(x, y, sample_weight)

    def _keras(self, method, *args, **kwargs):
        return strategy.current().run(method, self, *args, **kwargs)

    def _prepared(self, *batch, trains=False):
        # KerasHub's version fails with labels of several objectives.
        return keras.utils.unpack_x_y_sample_weight(
            data_path.prepared_batch(self, *batch, trains=trains)
        )

    def _check_device(self):
        # Keras itself refuses to train a task that was never compiled.
        now = strategy.current().device_name
        device = getattr(self, "_compiled_for", now)
        if device != now:
            raise checks.BuiltElsewhere(
                f"{self.name!r}, compiled for {device}, to run on {now}"
            )

    # --- Verbs. ---

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

    def keep_states(
        self,
        folder,
        images=None,
        texts=None,
        kind="float32",
        batch_size=32,
        variants=0,
        augment=None,
        verbose=1,
    ):
        """Write the states of a frozen tower to a folder.

        `fit`, `evaluate`, `predict` and the verbs take them in place of the
        pictures or texts, and run only the fusion. Training on float32 states
        gives the weights of training with frozen towers.
        What the folder already holds is kept: the same call continues after an
        interruption, and one with more pictures adds to them. Processes of
        `kbt.distribute` share the work; each must call it, with the same items
        and one folder.

        Args:
            folder: path of the folder.
            images: list of pictures, as `load_image` reads them, or None. Or
                a `Stream` of raw batches, whose first epoch is read in its
                order; of pairs of pictures both follow each other.
            texts: list of str or such a `Stream`, or None. One of both must be
                given.
            kind: `"float32"`, `"float16"` or `"int8"`, how they are stored.
            batch_size: int, items per forward pass.
            variants: int, how many augmented variants of each picture are kept
                beside it. `fit` draws one of them for each step, `evaluate`
                and `predict` read the picture.
            augment: callable that makes them, from a uint8 array
                `(height, width, 3)` and a `numpy.random.Generator`. It runs at
                each call; a variant with new pixels is computed anew.
            verbose: 0 for no progress bar.

        Returns:
            `KeptStates`, an array of one axis without values in memory.

        Raises:
            ValueError: no preprocessor, nothing to keep, unreadable pictures,
                or a folder with states of another model.

        Example:

        ```python
        task.backbone.image_tower.trainable = False
        task.compile()
        states = task.keep_states("states", images=["a.png", "b.png"])
        task.fit({"images": states, "text": ["a dog", "a cat"]}, [0, 1])
        ```
        """
        if (images is None) == (texts is None):
            raise ValueError(
                "One of `images` and `texts` must be given. Received: "
                f"{'neither' if images is None else 'both'}"
            )
        side, items = ("text", texts) if images is None else ("image", images)
        return keep_states.keep(
            *(self, folder, items, side, kind, batch_size),
            *(variants, augment, verbose),
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
            name: str, the verb's name for the texts.

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
            forward: `Forward` to run, by default that of the whole task.

        Yields:
            `(features, outputs)`, dict of arrays and NumPy arrays.
        """
        forward = forward or self.inference.whole()
        with self.inference.read_lock(name):
            if answers:
                self.new_heads.check(name, self.answering_heads)
            keep_states.check_sources(self, sources)
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

    def divide_logits(self, head, temperature):
        """Divide the logits of a head by a temperature, to calibrate scores.

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
        checks.check_choice("head", head, tuple(self.heads))
        divide_logits(self.heads[head], temperature)


def _frozen(head):
    return layer_records.frozen_state(head).get(layer_records.FROZEN)


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
