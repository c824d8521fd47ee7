"""The backbone: image tower, text tower, and the fusion that joins them."""

import copy
import functools
import re

import keras
import numpy as np

from keras_bridgetower import checks
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import compiled
from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend import remat
from keras_bridgetower.backend.keras_private import variables
from keras_bridgetower.backend.keras_private.models import PatchedModel
from keras_bridgetower.encoders.classified import ClassifiedEncoder
from keras_bridgetower.encoders.registry import has_rule
from keras_bridgetower.encoders.registry import no_rule
from keras_bridgetower.encoders.registry import text_length
from keras_bridgetower.models import bridges
from keras_bridgetower.models.adapters import AdaptedBackbone
from keras_bridgetower.models.attention import attention_blocks
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.checks import check_encoder
from keras_bridgetower.models.checks import check_features
from keras_bridgetower.models.fusion import CrossModalEncoder
from keras_bridgetower.models.positions import with_positions_for
from keras_bridgetower.models.towers import Tower
from keras_bridgetower.models.towers import resolve_taps
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.folder import CONFIG
from keras_bridgetower.presets.table import PresetsOf

IMAGE_NORMS = ("shared", "per_tap")
ENCODERS = ("image_encoder", "text_encoder")
# Values of a config, in the order of saved files.
_VALUES = (
    *("hidden_dim", "num_heads", "num_layers", "intermediate_dim", "bridge"),
    *("taps", "cross_encoder", "projections", "image_norms", "dropout"),
    *("attention_dropout", "layer_norm_epsilon", "bridge_epsilon"),
)
# Values of a config that `restore` applies to layers.
_STATE = (layer_records.POLICIES, layer_records.QUANTIZED, *layer_records.STATE)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerBackbone(PatchedModel, AdaptedBackbone):
    """Image and text encoder, joined by bridges to a cross-modal encoder.

    The backbone consists of `image_tower`, `text_tower` and `fusion`, which
    can also be called alone. To freeze one of them, set for example
    `backbone.text_tower.trainable = False` before `compile`.

    Args:
        image_encoder: an image encoder with a rule in `hidden_states`, such
            as `keras_hub.models.CLIPVisionEncoder`.
        text_encoder: a text encoder with a rule, such as
            `keras_hub.models.RobertaBackbone`. The two encoders may differ in
            depth and width.
        hidden_dim: int, width D of the cross-modal layers.
        num_heads: int, attention heads of the cross-modal layers.
        num_layers: int, number K of cross-modal layers.
        intermediate_dim: int, feed-forward width. None means 4D.
        bridge: identifier of the bridge, of `keras_bridgetower.models.bridges`;
            or `"static_manager"` or `"adaptive_manager"`, of ManagerTower; or
            None for the two-tower baseline METER.
        taps: the tower state of each cross-modal layer, see
            `CrossModalEncoder`.
        cross_encoder: `"co_attention"` or `"merged_attention"`.
        projections: `"shared"` or `"per_layer"`.
        image_norms: `"shared"`: the encoder's final norm is applied to all
            image states, or `"per_tap"`: each state has its own norm.
        image_summary: str, row 0 of the image states, where
            poolers and embeddings read: `"class"`, `"mean"`,
            `"attention_pool"` or `"learned"`, see `Tower`. None means the
            encoder's class token, and the mean if it has none.
        text_summary: str, the same for texts: `"start"`, `"mean"`, `"end"` or
            `"last"`. None means that of its training.
        image_taps: `taps` of the image tower alone, if its encoder has other
            blocks than the text encoder: as long, with None at the same
            places. None means `taps`.
        image_positions: `"coordinates"` tells the fusion where each token of
            a feature map is, `"coordinates_and_colors"` its color too, see
            `Tower`. None tells nothing: ViT has learned positions.
        dropout: float, dropout of the cross-modal layers.
        attention_dropout: float, dropout of their attention weights. None
            means `dropout`, as in the authors' code. With 0 attention uses a
            fused kernel in training, which is faster.
        layer_norm_epsilon: float, epsilon in the cross-modal layers.
        bridge_epsilon: float, epsilon in entries, bridges and managers.
        image_tokens: int, tokens of a picture that remain after merging
            before the fusion, which makes it faster. None merges none.
        dtype: dtype policy of the fusion, the same as that of the encoders.
        **kwargs: `name`, `trainable`.

    Call arguments:
        inputs: dict of `"images"`, float `(batch, S, S, 3)`, normalized;
            `"token_ids"` and `"padding_mask"`, int32 `(batch, T)`; and
            `"segment_ids"` if the text encoder takes them. The mask is 1 at
            tokens and 0 at padding. Texts are right-padded.

    Returns:
        dict of float tensors: `"text"` `(batch, T, D)`, `"image"`
        `(batch, P, D)`, `"pooled"` `(batch, 2D)`.

    Raises:
        TypeError: an encoder without a rule, or an unknown argument.
        ValueError: invalid or inconsistent arguments.

    Example:

    ```python
    backbone = BridgeTowerBackbone(
        image_encoder=keras_hub.models.CLIPVisionEncoder(
            patch_size=8, hidden_dim=16, num_layers=3, num_heads=2,
            intermediate_dim=32, image_shape=(32, 32, 3)),
        text_encoder=keras_hub.models.RobertaBackbone(
            vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16,
            intermediate_dim=32),
        hidden_dim=16, num_heads=2, num_layers=2)
    backbone({
        "images": np.zeros((1, 32, 32, 3)),
        "token_ids": np.ones((1, 7), "int32"),
        "padding_mask": np.ones((1, 7), "int32"),
    })["pooled"].shape  # (1, 32)
    ```

    Source: BridgeTower (AAAI 2023), figure 2; ManagerTower (ACL 2023).
    """

    def __init__(
        self,
        image_encoder,
        text_encoder,
        hidden_dim=768,
        num_heads=12,
        num_layers=6,
        intermediate_dim=None,
        bridge="add",
        taps=None,
        cross_encoder="co_attention",
        projections="shared",
        image_norms="shared",
        image_summary=None,
        text_summary=None,
        image_taps=None,
        image_positions=None,
        dropout=0.1,
        attention_dropout=None,
        layer_norm_epsilon=1e-5,
        bridge_epsilon=1e-5,
        image_tokens=None,
        dtype=None,
        **kwargs,
    ):
        checks.check_constructor(self, kwargs, ("name", "trainable"))
        checks.check_choice("image_norms", image_norms, IMAGE_NORMS)
        policy = keras.dtype_policies.get(dtype)
        check_encoder("image", image_encoder, policy)
        check_encoder("text", text_encoder, policy)
        taps = resolve_taps(taps, num_layers, bridge)
        image_taps = taps if image_taps is None else image_taps
        image_taps = resolve_taps(image_taps, num_layers, bridge, "image_taps")
        if [t is None for t in image_taps] != [t is None for t in taps]:
            raise ValueError(
                "`image_taps` must be as long as `taps` and have None where it "
                f"has: {taps}. Received: image_taps={image_taps}"
            )

        # === Parts ===
        self.image_tower = Tower(
            image_encoder,
            image_taps,
            image_norms,
            image_summary,
            image_positions,
            name="image_tower",
        )
        self.text_tower = Tower(
            text_encoder, taps, summary=text_summary, name="text_tower"
        )
        self.fusion = CrossModalEncoder(
            hidden_dim,
            num_heads,
            num_layers,
            intermediate_dim,
            # Names and plain values, which Keras can save in a config.
            bridge=None if bridge is None else bridges.serialize(bridge),
            taps=taps,
            cross_encoder=cross_encoder,
            projections=projections,
            dropout=dropout,
            attention_dropout=attention_dropout,
            layer_norm_epsilon=layer_norm_epsilon,
            bridge_epsilon=bridge_epsilon,
            image_tokens=image_tokens,
            dtype=keras.dtype_policies.serialize(policy),
            name="fusion",
        )

        # === Functional graph ===
        inputs = {
            "images": keras.Input(
                self.image_tower.inputs[0].shape[1:], name="images"
            )
        }
        for key in self.text_tower.input:
            inputs[key] = keras.Input((None,), dtype="int32", name=key)
        super().__init__(
            inputs=inputs, outputs=self.fuse(inputs), dtype=dtype, **kwargs
        )

        # === Config ===
        self.image_norms = image_norms
        # Tensors of a converted checkpoint that the model does not use, from
        # name to array. `export_to_transformers` writes them back.
        self.extra = {}

    presets = PresetsOf()

    @property
    def image_encoder(self):
        """The image encoder, as passed in."""
        return self.image_tower.encoder

    @property
    def text_encoder(self):
        """The text encoder, as passed in."""
        return self.text_tower.encoder

    @property
    def image_size(self):
        """int, side S of the images in pixels."""
        return self.image_tower.inputs[0].shape[1]

    @property
    def image_tokens(self):
        """int, tokens to which those of a picture are merged, or None."""
        return self.fusion.image_tokens

    @property
    def text_length(self):
        """int, largest number of tokens of a text, or None without a limit."""
        return text_length(self.text_encoder)

    def fuse(self, inputs, outputs=("text", "image", "pooled")):
        """Run towers and fusion, and compute only some outputs.

        Args:
            inputs: dict of tensors, the inputs of the backbone.
            outputs: tuple of some of `"text"`, `"image"`, `"pooled"`.

        Returns:
            dict of tensors with these keys.
        """
        return self.fusion(
            self.text_tower(inputs),
            self.image_tower(inputs["images"]),
            padding_mask=inputs["padding_mask"],
            outputs=outputs,
        )

    def __call__(self, inputs, *args, **kwargs):
        check_features(inputs, self.input, self)
        return super().__call__(inputs, *args, **kwargs)

    def attention_maps(self, inputs):
        """Compute all cross-modal attention maps of a batch.

        Args:
            inputs: dict of arrays or lists, the inputs of the backbone.

        Returns:
            dict of lists with one float array per cross-modal layer, lowest
            first, each `(batch, heads, queries, keys)`, rows summing to 1:
            `"text_self"` `(…, T, T)`, `"text_cross"` `(…, T, P)`,
            `"image_self"` `(…, P, P)`, `"image_cross"` `(…, P, T)`. Merged
            attention has one map over both modalities; the rows of each of
            its four blocks are scaled to sum to 1.

        Raises:
            RuntimeError: on JAX, if another thread trains these weights.

        Example:

        ```python
        backbone.attention_maps(features)["text_cross"][-1][0].mean(axis=0)
        ```
        """
        inputs = {
            k: v if hasattr(v, "shape") else np.asarray(v)
            for k, v in inputs.items()
        }
        check_features(inputs, self.input, self)
        inputs = {k: keras.ops.convert_to_tensor(v) for k, v in inputs.items()}
        compiled.restore_weights(self)
        with backend_ops.inference_scope(), capture_attention() as captured:
            outputs = self.fuse(inputs)
        sizes = [outputs[name].shape[1] for name in ("text", "image")]
        layers = [
            attention_blocks(step.branches(captured, sizes), sizes[0])
            for step in self.fusion.steps
        ]
        return {name: [maps[name] for maps in layers] for name in layers[0]}

    def checkpoint_activations(self):
        """Recompute activations in the backward pass, to save memory.

        The `blocks` keep only their inputs, and run again in the backward
        pass, with the same results. Call this before `compile` and `fit`.
        """
        for block in self.blocks:
            remat.checkpoint(block)

    @property
    def blocks(self):
        """Return the blocks of both towers and the cross-modal layers."""
        towers = (*self.image_tower.blocks, *self.text_tower.blocks)
        return [*towers, *self.fusion.steps]

    def with_image_size(self, side):
        """Return a new backbone with the same weights for another image size.

        The learned image positions are resized.

        Args:
            side: int, side in pixels, a multiple of the patch size.

        Returns:
            A new `BridgeTowerBackbone`; this one does not change.
        """
        resized = with_positions_for(self, side, self.fusion.image_tokens)
        resized.extra = self.extra
        return resized

    def get_config(self):
        own = layer_records.before_quantization(self.dtype_policy)
        policies = layer_records.changed_policies(self, own)
        state = {
            layer_records.POLICIES: policies,
            layer_records.QUANTIZED: layer_records.quantized_layers(self),
            **layer_records.frozen_state(self),
        }
        values = {name: getattr(self.fusion, name, None) for name in _VALUES}
        return {
            # Not KerasHub's, which names quantized layers by their paths: two
            # encoders may have the same ones.
            "name": self.name,
            "trainable": self.trainable,
            "dtype": keras.dtype_policies.serialize(own),
            "image_encoder": _encoder_config(self.image_encoder),
            "text_encoder": _encoder_config(self.text_encoder),
            **values | {"image_norms": self.image_norms},
            **{k: v for k, v in self._choices().items() if v is not None},
            **{name: value for name, value in state.items() if value},
        }

    def _choices(self):
        """Return values that a configuration has only if they were given."""
        taps = self.image_tower.taps
        return {
            "image_summary": self.image_tower.given_summary,
            "text_summary": self.text_tower.given_summary,
            "image_positions": self.image_tower.positions,
            "image_taps": None if taps == self.fusion.taps else taps,
            "image_tokens": self.fusion.image_tokens,
        }

    def save_to_preset(self, preset_dir, max_shard_size=10):
        """Save the backbone and a manifest to a new preset folder."""
        layer_records.check_one_policy(self)
        save = super().save_to_preset
        registry.write_backbone(self, save, preset_dir, max_shard_size)

    def export_to_transformers(self, path):
        """Write a new folder for `transformers.BridgeTowerModel`."""
        registry.export(self, path)

    @classmethod
    def from_preset(cls, preset, load_weights=True, **kwargs):
        """Load the backbone of a preset.

        Args:
            preset, load_weights: as `BridgeTowerVQA.from_preset`.
            **kwargs: `image_size`, `dtype` and `revision`, as there, and
                constructor arguments that replace the saved ones.
        """
        own = ("image_size", "dtype", *checks.OF_PRESETS)
        image_size, dtype, revision = (kwargs.pop(name, None) for name in own)
        checks.check_keywords(cls, kwargs, own, ENCODERS)
        folder = registry.open_preset(preset, revision)
        cls, config = folder.spec(CONFIG, cls)
        with folder.reading(CONFIG):
            has_weights = load_weights or folder.has(weights_file.WEIGHTS)
            size = folder.weight_bytes() if has_weights else None
            _check_config(config)
            if dtype is not None:
                kwargs["dtype"] = dtype
            config = {
                k: v for k, v in config.items() if k not in layer_records.KEYS
            }
        tokens = kwargs.get("image_tokens", config.get("image_tokens"))
        if image_size is not None:
            # They are checked against the tokens of that size.
            for values in (kwargs, config):
                values.pop("image_tokens", None)

        def make(values):
            build = functools.partial(cls.from_config, values)
            if size is not None:
                room = configs.WEIGHTS_IN_A_BYTE * size, weights_file.WEIGHTS
                # It counts the weights before it takes memory for them.
                made = variables.without_initialization(build, room=room)
                if load_weights:
                    return made
            return build()

        backbone = folder.create(CONFIG, make, config, kwargs)
        if load_weights:
            registry.load_backbone(backbone, folder)
        changed = image_size != backbone.image_size or tokens is not None
        if image_size is not None and changed:
            backbone = with_positions_for(backbone, image_size, tokens)
        backbone.extra = registry.read_extra(folder)
        return backbone

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = copy.deepcopy(config)
        state = {name: config.pop(name, None) for name in _STATE}
        dtype = config.get("dtype")
        for key in ENCODERS:
            if isinstance(config[key], dict):
                # A caller may load the backbone with another dtype.
                if dtype is not None:
                    config[key]["config"]["dtype"] = dtype
                config[key] = keras.layers.deserialize(
                    config[key], custom_objects=custom_objects
                )
        backbone = super().from_config(config)
        layer_records.restore_policies(backbone, state[layer_records.POLICIES])
        layer_records.quantize_as(backbone, state[layer_records.QUANTIZED])
        parts = backbone.image_encoder, backbone.text_encoder
        layer_records.restore_frozen(backbone, state, parts)
        return backbone


def _check_config(config):
    """Raise on encoders without a rule, and on values that are not allowed."""
    plain = dict(config)
    for name in ENCODERS:
        _check_encoder(name, plain.pop(name))
    configs.check_values(plain)


def _check_encoder(name, spec):
    """Raise on an encoder that `from_config` must not make."""
    encoder, values = configs.class_and_values(spec, object)
    if not has_rule(encoder):
        raise ValueError(f"`{name}`: {no_rule(encoder)}")
    if issubclass(encoder, ClassifiedEncoder):
        _check_encoder("encoder", values.pop("encoder"))
    configs.check_values(values)


def _encoder_config(encoder):
    """Return the configuration of an encoder, without a generated name.

    KerasHub's CLIP prefixes the names of its layers with its own name. With a
    generated name in the config, a loaded encoder would have other layer
    names, and a rule might not find its layers.
    """
    spec = keras.layers.serialize(encoder)
    if isinstance(encoder, ClassifiedEncoder):
        spec["config"]["encoder"] = _encoder_config(encoder.encoder)
    # The backbone saves which layers are frozen.
    spec["config"].pop("trainable", None)
    if isinstance(spec["config"].get("dtype"), dict):
        # KerasHub's config names quantized layers by their paths.
        policy = layer_records.float_policy(encoder)
        spec["config"]["dtype"] = keras.dtype_policies.serialize(policy)
    plain = re.sub(r"[_\d]", "", encoder.name)
    generated = plain == re.sub(r"[_\d]", "", type(encoder).__name__).lower()
    prefix = any(x.name.startswith(f"{encoder.name}_") for x in encoder.layers)
    # A plain functional model lists the names of all its layers.
    if generated and not prefix and "layers" not in spec["config"]:
        del spec["config"]["name"]
    return spec
