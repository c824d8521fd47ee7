"""The configuration of a backbone, and a backbone from a preset folder."""

import copy
import functools
import re

import keras

from keras_bridgetower.backend import freezing
from keras_bridgetower.backend import precision
from keras_bridgetower.backend import quantization
from keras_bridgetower.backend import uninitialized
from keras_bridgetower.checks import OF_PRESETS
from keras_bridgetower.checks import check_keywords
from keras_bridgetower.models.positions import with_positions_for
from keras_bridgetower.models.towers import hidden_states
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.folder import CONFIG

ENCODERS = ("image_encoder", "text_encoder")
# The least number of bytes that one block takes in a weight file: the names
# and offsets of its arrays.
_BYTES_OF_LAYER = 4_000


def load(
    cls,
    preset,
    load_weights,
    image_size=None,
    dtype=None,
    revision=None,
    **kwargs,
):
    """Load the backbone of a preset.

    Args:
        cls: `BridgeTowerBackbone` or a subclass.
        preset: as in `registry.open_preset`.
        load_weights: bool; if False, the weights stay random.
        image_size: int, side of the images in pixels, or None for the saved
            one.
        dtype: dtype policy, or None for the saved one.
        revision: as in `registry.open_preset`.
        **kwargs: constructor arguments that replace the saved ones.

    Returns:
        Object of `cls`.

    Raises:
        TypeError: an unknown keyword.
        PresetError: files that do not describe such a backbone.
    """
    check_keywords(cls, kwargs, ("image_size", "dtype", *OF_PRESETS), ENCODERS)
    folder = registry.open_preset(preset, revision)
    cls, config = folder.spec(CONFIG, cls)
    with folder.reading(CONFIG):
        there = load_weights or folder.has(weights_file.WEIGHTS)
        size = folder.weight_bytes() if there else None
        _check_config(config, size)
        if dtype is not None:
            kwargs["dtype"] = dtype
        config = {k: v for k, v in config.items() if k not in freezing.KEYS}

    def make(values):
        return uninitialized.without_initialization(
            functools.partial(cls.from_config, values),
            load_weights,
            (configs.WEIGHTS_IN_A_BYTE * size, weights_file.WEIGHTS)
            if load_weights
            else None,
        )

    backbone = folder.create(CONFIG, make, config, kwargs)
    if load_weights:
        registry.load_backbone(backbone, folder)
    if image_size not in (None, backbone.image_size):
        backbone = with_positions_for(backbone, image_size, uninitialized.move)
    backbone.extra = registry.read_extra(folder)
    return backbone


def _check_config(config, weight_bytes):
    """Refuse encoders without a rule, and sizes that the weights cannot fill.

    The file of weights bounds what is built, so that a damaged or hostile
    configuration cannot ask for any amount of memory.
    """
    plain = dict(config)
    for name in ENCODERS:
        encoder, values = configs.class_and_values(plain.pop(name), object)
        if hidden_states.dispatch(encoder) is hidden_states.dispatch(object):
            raise ValueError(
                f"`{name}` must be of a class with a rule in `hidden_states`. "
                f"Received: {name} of class {encoder.__name__}"
            )
        configs.check_values(values)
    configs.check_values(plain)
    weights, layers = configs.fewest_weights(config)
    if weight_bytes is not None and (
        weights > configs.WEIGHTS_IN_A_BYTE * weight_bytes
        or layers * _BYTES_OF_LAYER > weight_bytes
    ):
        raise ValueError(
            f"It describes at least {weights:,} weights in {layers:,} layers, "
            f"more than the {weight_bytes:,} bytes of model.weights.h5 hold."
        )


def encoder_spec(encoder):
    """The configuration of an encoder, without a name that Keras made up.

    KerasHub's CLIP puts the name that it was given in front of the names of
    its layers. If it were saved with a generated name, the loaded encoder
    would have other layer names, and a rule might not find its layers.
    """
    spec = keras.layers.serialize(encoder)
    # The backbone says what is frozen.
    spec["config"].pop("trainable", None)
    if isinstance(spec["config"].get("dtype"), dict):
        # KerasHub's own names quantized layers by their paths.
        policy = precision.float_policy(encoder)
        spec["config"]["dtype"] = keras.dtype_policies.serialize(policy)
    plain = re.sub(r"[_\d]", "", encoder.name)
    made_up = plain == re.sub(r"[_\d]", "", type(encoder).__name__).lower()
    before = any(x.name.startswith(f"{encoder.name}_") for x in encoder.layers)
    # A plain functional model lists the names of all its layers.
    if made_up and not before and "layers" not in spec["config"]:
        del spec["config"]["name"]
    return spec


def with_encoders(config, custom_objects):
    """A backbone's configuration with encoders in place of their configs.

    Args:
        config: dict, as `get_config` returns it.
        custom_objects: as in Keras' `from_config`.

    Returns:
        dict of constructor arguments.
    """
    config = copy.deepcopy(config)
    dtype = config.get("dtype")
    for key in ENCODERS:
        if isinstance(config[key], dict):
            # A caller may load the backbone, and so its encoders, in another
            # dtype.
            if dtype is not None:
                config[key]["config"]["dtype"] = dtype
            config[key] = keras.layers.deserialize(
                config[key], custom_objects=custom_objects
            )
    return config


def config_of(backbone, config):
    """The configuration of a backbone, with what its layers were changed to.

    Args:
        backbone: a `BridgeTowerBackbone`.
        config: dict, the configuration that KerasHub makes of it.
    """
    fusion = backbone.fusion
    kept = {
        precision.POLICIES: precision.changed_policies(
            backbone, fusion.dtype_policy
        ),
        quantization.QUANTIZED: quantization.quantized_layers(backbone),
        **freezing.state_of(backbone),
    }
    config.update(
        # KerasHub's own names quantized layers by their paths.
        dtype=keras.dtype_policies.serialize(backbone.dtype_policy),
        image_encoder=encoder_spec(backbone.image_encoder),
        text_encoder=encoder_spec(backbone.text_encoder),
        hidden_dim=fusion.hidden_dim,
        num_heads=fusion.num_heads,
        num_layers=fusion.num_layers,
        intermediate_dim=fusion.intermediate_dim,
        bridge=fusion.bridge,
        taps=fusion.taps,
        cross_encoder=fusion.cross_encoder,
        projections=fusion.projections,
        image_norms=backbone.image_norms,
        dropout=fusion.dropout,
        attention_dropout=fusion.attention_dropout,
        layer_norm_epsilon=fusion.layer_norm_epsilon,
        bridge_epsilon=fusion.bridge_epsilon,
    )
    return config | {name: found for name, found in kept.items() if found}


def split(config):
    """Take out of a configuration what `restore` gives back to layers.

    Args:
        config: dict, as `with_encoders` returns it.

    Returns:
        `(arguments, kept)`, two dicts.
    """
    names = precision.POLICIES, quantization.QUANTIZED, *freezing.STATE
    kept = {name: config.get(name) for name in names}
    return {k: v for k, v in config.items() if k not in kept}, kept


def restore(backbone, kept):
    """Change the layers of a new backbone as `split` found them changed."""
    precision.restore_policies(backbone, kept[precision.POLICIES])
    quantization.quantize_as(backbone, kept[quantization.QUANTIZED])
    frozen = {name: kept[name] for name in freezing.STATE}
    parts = backbone.image_encoder, backbone.text_encoder
    freezing.restore(backbone, frozen, parts)
