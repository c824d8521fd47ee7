"""The configuration of a backbone, and a backbone from a preset folder."""

import copy
import functools
import re

import keras

from keras_bridgetower.backend import layer_records
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
# Values of a config, in the order of saved files.
_VALUES = (
    *("hidden_dim", "num_heads", "num_layers", "intermediate_dim", "bridge"),
    *("taps", "cross_encoder", "projections", "image_norms", "dropout"),
    *("attention_dropout", "layer_norm_epsilon", "bridge_epsilon"),
)
# Values of a config that `restore` applies to layers.
_STATE = (layer_records.POLICIES, layer_records.QUANTIZED, *layer_records.STATE)
# Minimum size of a block in a weight file: the names and offsets of its arrays.
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
        has_weights = load_weights or folder.has(weights_file.WEIGHTS)
        size = folder.weight_bytes() if has_weights else None
        _check_config(config, size)
        if dtype is not None:
            kwargs["dtype"] = dtype
        config = {
            k: v for k, v in config.items() if k not in layer_records.KEYS
        }

    def make(values):
        room = size and (configs.WEIGHTS_IN_A_BYTE * size, weights_file.WEIGHTS)
        return uninitialized.without_initialization(
            functools.partial(cls.from_config, values), load_weights, room
        )

    backbone = folder.create(CONFIG, make, config, kwargs)
    if load_weights:
        registry.load_backbone(backbone, folder)
    if image_size not in (None, backbone.image_size):
        backbone = with_positions_for(backbone, image_size, uninitialized.move)
    backbone.extra = registry.read_extra(folder)
    return backbone


def _check_config(config, weight_bytes):
    """Raise on encoders without a rule, and on more weights than the file has.

    The size of the weight file limits the model, so that a damaged or hostile
    configuration cannot request any amount of memory.
    """
    plain = dict(config)
    for name in ENCODERS:
        encoder, values = configs.class_and_values(plain.pop(name), object)
        if hidden_states.dispatch(encoder) is hidden_states.dispatch(object):
            raise ValueError(
                f"`{name}` must have a rule in `hidden_states`. Received: "
                f"{name} of class {encoder.__name__}"
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


def encoder_config(encoder):
    """Return the configuration of an encoder, without a generated name.

    KerasHub's CLIP prefixes the names of its layers with its own name. With a
    generated name in the config, a loaded encoder would have other layer
    names, and a rule might not find its layers.
    """
    spec = keras.layers.serialize(encoder)
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


def with_encoders(config, custom_objects):
    """Replace the configs of encoders in a backbone's config by encoders.

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
            # A caller may load the backbone with another dtype.
            if dtype is not None:
                config[key]["config"]["dtype"] = dtype
            config[key] = keras.layers.deserialize(
                config[key], custom_objects=custom_objects
            )
    return config


def complete_config(backbone, config):
    """Return the whole configuration of a backbone, with its layers' state.

    Args:
        backbone: a `BridgeTowerBackbone`.
        config: dict, the configuration that KerasHub makes of it.
    """
    fusion = backbone.fusion
    policies = layer_records.changed_policies(backbone, fusion.dtype_policy)
    state = {
        layer_records.POLICIES: policies,
        layer_records.QUANTIZED: layer_records.quantized_layers(backbone),
        **layer_records.frozen_state(backbone),
    }
    values = {name: getattr(fusion, name, None) for name in _VALUES}
    return {
        **config,
        # KerasHub's config names quantized layers by their paths.
        "dtype": keras.dtype_policies.serialize(backbone.dtype_policy),
        "image_encoder": encoder_config(backbone.image_encoder),
        "text_encoder": encoder_config(backbone.text_encoder),
        **values | {"image_norms": backbone.image_norms},
        **{name: value for name, value in state.items() if value},
    }


def split(config):
    """Split a configuration into constructor arguments and layers' state.

    Args:
        config: dict, as `with_encoders` returns it.

    Returns:
        `(arguments, state)`, two dicts.
    """
    state = {name: config.get(name) for name in _STATE}
    return {k: v for k, v in config.items() if k not in state}, state


def restore(backbone, state):
    """Apply the state of `split` to the layers of a new backbone."""
    layer_records.restore_policies(backbone, state[layer_records.POLICIES])
    layer_records.quantize_as(backbone, state[layer_records.QUANTIZED])
    parts = backbone.image_encoder, backbone.text_encoder
    layer_records.restore_frozen(backbone, state, parts)
