"""The abstract task: features, head, loss and metric around a backbone."""

import warnings

import keras
import keras_hub

from keras_bridgetower.backbone import BridgeTowerBackbone
from keras_bridgetower.presets import registry
from keras_bridgetower.validation import check_features


class BridgeTowerTask(keras_hub.models.Task):
    """Abstract: a backbone, a preprocessor and a head, ready to train.

    A subclass names its `preprocessor_cls`, builds its head, and defines
    `default_loss`, `default_metrics` and one verb.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a preprocessor of the task, or None: then `fit`,
            `predict` and `evaluate` take features.
        head: layer from the read output to logits.
        reads: str, the output of the backbone that the head reads.
        **kwargs: `name`, `compile`.
    """

    backbone_cls = BridgeTowerBackbone
    presets = registry.PresetsOf()
    # Constructor values that shape the head, so that a preset with other
    # values has no head for us.
    head_arguments = ()
    # Those of them that the preprocessor takes too.
    label_arguments = ()

    def __init__(self, backbone, preprocessor, head, reads, **kwargs):
        if preprocessor is not None:
            _check_fit(backbone, preprocessor)
        # === Layers ===
        self.backbone = backbone
        self.preprocessor = preprocessor
        self.head = head
        # === Functional graph ===
        inputs = backbone.input
        outputs = head(backbone.fuse(inputs, outputs=(reads,))[reads])
        super().__init__(inputs=inputs, outputs=outputs, **kwargs)

    def default_loss(self):
        """The loss that `compile` uses by default."""
        raise TypeError(_ABSTRACT.format(type(self).__name__))

    def default_metrics(self):
        """The metrics that `compile` uses by default."""
        raise TypeError(_ABSTRACT.format(type(self).__name__))

    def compile(
        self, optimizer="auto", loss="auto", *, metrics="auto", **kwargs
    ):
        """Set up training.

        Args:
            optimizer: a Keras optimizer or identifier. By default AdamW with
                the authors' settings for fine-tuning, constant rate.
            loss: a Keras loss; by default the task's.
            metrics: list of metrics; by default the task's.
            **kwargs: as `keras.Model.compile`.
        """
        if optimizer == "auto":
            # Base VQA fine-tuning of the authors' scripts, without schedule.
            optimizer = keras.optimizers.AdamW(
                1e-5, weight_decay=0.05, beta_2=0.98, epsilon=1e-8
            )
        super().compile(
            optimizer=optimizer,
            loss=self.default_loss() if loss == "auto" else loss,
            metrics=self.default_metrics() if metrics == "auto" else metrics,
            **kwargs,
        )

    def compile_from_config(self, config):
        self.compile(**keras.saving.deserialize_keras_object(config))
        self.optimizer.build(self.trainable_variables)

    def fit(self, x=None, y=None, *, shuffle=False, **kwargs):
        """Train, on raw inputs where the task has a preprocessor.

        Args:
            x: a `tf.data` dataset of `(x, y)`, or a dict of arrays.
            y: labels, where `x` is arrays.
            shuffle: bool. Raw inputs become a dataset first, which Keras
                takes in its order; shuffle the dataset yourself.
            **kwargs: as `keras.Model.fit`.

        Returns:
            A `keras.callbacks.History`.
        """
        return super().fit(x, y, shuffle=shuffle, **kwargs)

    def __call__(self, inputs, *args, **kwargs):
        check_features(inputs, self.input)
        return super().__call__(inputs, *args, **kwargs)

    def preprocessed(self, x):
        """Features of raw inputs, for the verbs.

        Args:
            x: dict of `"images"` and `"text"`.

        Returns:
            dict of arrays.

        Raises:
            ValueError: the task has no preprocessor.
        """
        if self.preprocessor is None:
            raise ValueError(
                "`preprocessor` must be set to take pictures and strings. "
                "Pass one to the task, or call `predict_features` with "
                "features. Received: preprocessor=None"
            )
        return self.preprocessor(x)

    def predict_features(self, features, batch_size=32):
        """Logits of features that a preprocessor made.

        Args:
            features: dict of arrays with a batch axis.
            batch_size: int.

        Returns:
            NumPy array of logits.
        """
        # `predict` of a task would preprocess once more.
        return keras.Model.predict(
            self, features, batch_size=batch_size, verbose=0
        )

    def enable_lora(self, rank):
        """Train low-rank adapters of the backbone's attention, and the head.

        Every weight of the backbone is frozen but the adapters of query and
        value projections. Call it before training starts.

        Args:
            rank: int, rank of the adapters.
        """
        self.backbone.enable_lora(rank)
        for layer in self.backbone._flatten_layers(include_self=False):
            if getattr(layer, "lora_enabled", False):
                # Adapters are all that `save_lora_weights` keeps.
                layer.bias.trainable = False

    def save_task_weights(self, filepath):
        """Save the head's weights to a `.weights.h5` file."""
        # KerasHub's own method would put the optimizer beside them.
        keras.saving.save_weights(self.head, filepath)

    def load_task_weights(self, filepath):
        """Load what `save_task_weights` saved."""
        keras.saving.load_weights(self.head, filepath)

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Save the task to a new preset folder, with a manifest.

        Args:
            preset_dir: path of a folder that does not exist yet.
            max_shard_size: number, largest weight file in GB.

        Raises:
            ValueError: the folder exists.
        """
        save = super().save_to_preset
        registry.write(preset_dir, lambda folder: save(folder, max_shard_size))

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """A task from a preset.

        Args:
            preset: a name of `presets`, the path of a preset folder, or a
                handle such as `"hf://user/model"`.
            load_weights: bool, whether to load weights or leave them at
                their random start.
            **kwargs: `dtype`, `preprocessor`, and the values of the head
                (see the class). Where the preset has no such head, a new one
                is made, with a warning.

        Returns:
            A task of this class.

        Raises:
            ValueError: no such preset, or files that were changed.
        """
        preset = registry.resolve(preset)
        saved = registry.saved_config(preset, "task.json") or {}
        config = saved.get("config", {})
        asked = {k: kwargs[k] for k in cls.head_arguments if k in kwargs}
        same_class = saved.get("class_name") == cls.__name__
        if same_class and all(config[k] == v for k, v in asked.items()):
            return super().from_preset(preset, load_weights, **kwargs)
        if load_weights:
            warnings.warn(
                f"The head of this {cls.__name__} is new and random: the "
                f"preset holds {saved.get('class_name', 'no task')}"
                f"{' with other ' + ', '.join(asked) if same_class else ''}. "
                "Train it before use.",
                stacklevel=2,
            )
        backbone = cls.backbone_cls.from_preset(
            preset, load_weights, dtype=kwargs.pop("dtype", None)
        )
        if "preprocessor" not in kwargs:
            labels = {k: kwargs[k] for k in cls.label_arguments if k in kwargs}
            kwargs["preprocessor"] = cls.preprocessor_cls.from_preset(
                preset, **labels
            )
        return cls(backbone=backbone, **kwargs)


_ABSTRACT = (
    "`BridgeTowerTask` is abstract. Define `default_loss` and "
    "`default_metrics` in a subclass. Received: task={}"
)


def _check_fit(backbone, preprocessor):
    """Refuse a preprocessor whose output the backbone cannot take."""
    wanted, made = set(backbone.input), set(preprocessor.features)
    if wanted != made:
        raise ValueError(
            f"`preprocessor` must make the features {sorted(wanted)}. Set its "
            f"`features`. Received: features={preprocessor.features}"
        )
    size = preprocessor.image_converter.image_size
    if size != backbone.image_size:
        raise ValueError(
            "`preprocessor` must make images of the backbone's size, "
            f"{backbone.image_size}. Set the converter's `image_size`, or use "
            f"`backbone.with_image_size({size})`. "
            f"Received: image_size={size}"
        )
    tokenizer, encoder = preprocessor.tokenizer, backbone.text_encoder
    if tokenizer.sequence_length > encoder.max_sequence_length:
        raise ValueError(
            "`preprocessor` must make texts no longer than the text encoder's "
            f"{encoder.max_sequence_length} positions. Received: "
            f"sequence_length={tokenizer.sequence_length}"
        )
