"""Towers: encoders that return the states of several of their blocks.

`hidden_states` reads the states and has one rule per class of encoder. `Tower`
picks those that the bridges need.
"""

import functools
import operator

import keras
import keras_hub
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.layers import source_layer
from keras_bridgetower.backend.keras_private.models import PatchedModel
from keras_bridgetower.checks import BACKENDS
from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.checks import check_lengths
from keras_bridgetower.models.checks import check_pixel_dtype


@functools.singledispatch
def hidden_states(encoder):
    """Return the outputs of an encoder's blocks, as bridges read them.

    To support another encoder, register a rule for its class:

    ```python
    @hidden_states.register(MyEncoder)
    def _(encoder):
        return [encoder.final_norm(block.output) for block in encoder.blocks]
    ```

    Args:
        encoder: a functional encoder, such as a `keras_hub` backbone.

    Returns:
        List of symbolic tensors `(batch, tokens, width)`, lowest block first,
        connected to the inputs of `encoder`. For pre-norm encoders the final
        norm of the encoder is applied to every state. The encoder does not
        change.

    Raises:
        TypeError: there is no rule for this class.

    Example:

    ```python
    states = hidden_states(keras_hub.models.RobertaBackbone(
        vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16,
        intermediate_dim=32))
    ```
    """
    known = sorted({c.__name__ for c in hidden_states.registry} - {"object"})
    raise TypeError(
        f"The encoder must be one of {known} (of a CLIPBackbone its `vision_"
        f"encoder`), or have a rule of `hidden_states`. Received: {encoder!r}"
    )


@hidden_states.register(keras_hub.models.CLIPVisionEncoder)
def _clip(encoder):
    return [encoder.layer_norm(b.output) for b in encoder.encoder_layers]


@hidden_states.register(keras_hub.models.ViTBackbone)
def _vit(encoder):
    blocks = encoder.get_layer("vit_encoder")
    x = encoder.get_layer("vit_patching_and_embedding").output
    x = blocks.dropout(x)
    states = []
    for block in blocks.encoder_layers:
        x = block(x)
        states.append(blocks.layer_norm(x))
    return states


@hidden_states.register(keras_hub.models.DeiTBackbone)
def _deit(encoder):
    blocks = encoder.get_layer("deit_encoder")
    x = encoder.get_layer("deit_patching_and_embedding").output
    states = []
    for block in blocks.encoder_layers:
        x = FirstOutput(block, name=f"{block.name}_output")(x)
        states.append(blocks.layer_norm(x))
    return states


@hidden_states.register(keras_hub.models.RobertaBackbone)
def _roberta(encoder):
    tokens = TokenLookup(encoder.token_embedding, name="token_lookup")(
        encoder.input["token_ids"]
    )
    x = tokens + encoder.embeddings.position_embedding(tokens)
    return _post_norm_blocks(encoder, x)


@hidden_states.register(keras_hub.models.BertBackbone)
def _bert(encoder):
    tokens = TokenLookup(encoder.token_embedding, name="token_lookup")(
        encoder.input["token_ids"]
    )
    segments = TokenLookup(encoder.segment_embedding, name="segment_lookup")(
        encoder.input["segment_ids"]
    )
    positions = encoder.position_embedding(tokens)
    return _post_norm_blocks(encoder, tokens + positions + segments)


def _post_norm_blocks(encoder, x):
    """Return the states of a RoBERTa or BERT with the embeddings `x`."""
    x = encoder.embeddings_dropout(encoder.embeddings_layer_norm(x))
    states = []
    for block in encoder.transformer_layers:
        x = block(x, padding_mask=encoder.input["padding_mask"])
        states.append(x)
    return states


def correct_defaults(encoder):
    """Correct two defaults of KerasHub's encoders, in place.

    A new CLIP encoder has position id 0 at every patch; it gets 0, 1, 2, ...
    BERT was trained with the exact GELU, which KerasHub approximates by tanh;
    it gets the exact one. Other encoders do not change.
    """
    if isinstance(encoder, keras_hub.models.CLIPVisionEncoder):
        ids = encoder.embedding.position_ids
        ids.assign(np.arange(ids.shape[1])[None])
    elif isinstance(encoder, keras_hub.models.BertBackbone):
        for block in encoder.transformer_layers:
            for layer in layers_in(block):
                if layer.name == "feedforward_intermediate_dense":
                    layer.activation = keras.activations.gelu


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class Tower(PatchedModel, keras.Model):
    """An encoder that returns the states of several of its blocks.

    The tower owns its encoder, and corrects its defaults as
    `correct_defaults` describes.

    Args:
        encoder: an encoder with a rule in `hidden_states`.
        taps: sequence of negative ints and None: the states to return,
            counted from the top; None entries are skipped.
        norms: `"shared"`: the encoder's final norm is applied to every
            state; `"per_tap"`: each tapped state has a norm of its own,
            initialized as a copy of the final norm.
        name: str, name of the model.

    Call arguments:
        inputs: as of `encoder`: the image tensor `(batch, S, S, 3)`, or a
            dict of int tensors `(batch, tokens)`.

    Returns:
        List of float tensors `(batch, tokens, width)`, one for each index in
        `taps`.

    Raises:
        TypeError: no rule for the encoder.
        ValueError: an unsupported backend.

    Example:

    ```python
    encoder = keras_hub.models.CLIPVisionEncoder(
        patch_size=8, hidden_dim=16, num_layers=3, num_heads=2,
        intermediate_dim=32, image_shape=(32, 32, 3))
    low, high = Tower(encoder, taps=(-2, -1))(np.ones((1, 32, 32, 3)))
    ```
    """

    def __init__(self, encoder, taps, norms="shared", name=None, **kwargs):
        check_choice("KERAS_BACKEND", keras.config.backend(), BACKENDS)
        correct_defaults(encoder)
        states = hidden_states(encoder)
        used = [tap for tap in taps if tap is not None]
        if min(used, default=0) < -len(states):
            raise ValueError(
                f"`taps` must count the encoder's {len(states)} states from "
                f"the last, which is -1. Received: taps={tuple(taps)}"
            )
        tapped = [states[tap] for tap in used]
        if norms == "per_tap":
            tapped = [_with_own_norm(x, i) for i, x in enumerate(tapped)]
        single = len(encoder.inputs) == 1
        super().__init__(
            inputs=encoder.inputs[0] if single else encoder.input,
            outputs=tapped,
            name=name,
            **kwargs,
        )
        # Not tracked by Keras: otherwise blocks above the highest tap would
        # count as weights of the tower on some backends only.
        object.__setattr__(self, "encoder", encoder)
        self.taps, self.norms = tuple(taps), norms

    @property
    def blocks(self):
        """The layers of the encoder that contain attention."""
        return [
            layer
            for layer in self.layers
            if any(
                isinstance(part, keras.layers.MultiHeadAttention)
                for part in layers_in(layer)
            )
        ]

    def get_config(self):
        # For models of parts and their clones. A backbone saves its own state.
        layer_records.check_not_quantized(self, "A copy of a tower alone")
        return {
            "name": self.name,
            "encoder": keras.layers.serialize(self.encoder),
            "taps": self.taps,
            "norms": self.norms,
            "trainable": self.trainable,
            **layer_records.frozen_state(self),
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        values = {
            k: v for k, v in config.items() if k not in layer_records.STATE
        }
        values["encoder"] = keras.layers.deserialize(
            config["encoder"], custom_objects=custom_objects
        )
        tower = cls(**values)
        layer_records.restore_frozen(tower, config, (values["encoder"],))
        return tower

    def __call__(self, inputs, *args, **kwargs):
        if len(getattr(inputs, "shape", ())) == 4:
            check_pixel_dtype(inputs, self.encoder)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        check_lengths(inputs, self.encoder)
        return _as_list(super().call(inputs, training=training, mask=mask))

    def compute_output_spec(self, inputs, training=None, mask=None):
        spec = super().compute_output_spec(inputs, training=training, mask=mask)
        return _as_list(spec)


def _as_list(outputs):
    # A functional model with a single output returns the tensor itself.
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _with_own_norm(state, index):
    """Return a state with its own copy of the final norm."""
    shared, (source,) = source_layer(state)
    norm = keras.layers.LayerNormalization.from_config(
        {**shared.get_config(), "name": f"tap_{index}_norm"}
    )
    norm.build(source.shape)
    for own, copied in zip(norm.weights, shared.weights, strict=True):
        own.assign(copied)
    return norm(source)


class _LayerWrapper(keras.layers.Layer):
    """Abstract: a layer around the layer `inner` of an encoder.

    Args:
        layer: a `keras.layers.Layer`.
        **kwargs: name of the wrapper.
    """

    # Name of the constructor argument for the layer.
    inner = None

    def __init__(self, layer, **kwargs):
        super().__init__(**kwargs | {"dtype": layer.dtype_policy})
        setattr(self, self.inner, layer)

    def get_config(self):
        layer = keras.layers.serialize(getattr(self, self.inner))
        return {**super().get_config(), self.inner: layer}

    @classmethod
    def from_config(cls, config):
        layer = keras.layers.deserialize(config[cls.inner])
        return cls(**{**config, cls.inner: layer})


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class TokenLookup(_LayerWrapper):
    """Look up rows of an embedding's table, with a dense gradient.

    On TensorFlow the gradient of a plain lookup is a list of slices. If a
    token occurs twice, its row occurs twice in the list. Adaptive optimizers
    then square the parts instead of their sum, and clipping computes a wrong
    norm. `backend_ops.lookup` sums them first. This layer has no weights: the
    table remains a weight of the encoder.

    Args:
        embedding: a `keras.layers.Embedding`.
        **kwargs: name of the layer.

    Example:

    ```python
    embedding = keras.layers.Embedding(10, 4)
    TokenLookup(embedding)(np.array([[1, 1, 2]])).shape  # (1, 3, 4)
    ```
    """

    inner = "embedding"

    def __init__(self, embedding, **kwargs):
        super().__init__(embedding, **kwargs)

    def build(self, ids_shape):
        if not self.embedding.built:
            self.embedding.build(ids_shape)

    def call(self, ids):
        if self.embedding.quantization_mode is not None:
            # The embedding scales the integers of a quantized table.
            return self.embedding(ids)
        table = ops.convert_to_tensor(self.embedding.embeddings)
        return backend_ops.lookup(table, ids)

    def compute_output_shape(self, ids_shape):
        return (*ids_shape, self.embedding.output_dim)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class FirstOutput(_LayerWrapper):
    """Call a block with several outputs and return the first one.

    DeiT's blocks return `(x, None)`. A functional model cannot call a layer
    again if the second call has more outputs than the first.
    """

    inner = "block"

    def __init__(self, block, **kwargs):
        super().__init__(block, **kwargs)
        self.built = True

    def call(self, x, training=None):
        return self.block(x, training=training)[0]

    def compute_output_shape(self, x_shape):
        return x_shape


def resolve_taps(taps, num_layers, bridge):
    """Check taps and return them as a tuple with one entry per layer.

    Args:
        taps: sequence of negative ints and None, or None for the default.
        num_layers: int, number of cross-modal layers.
        bridge: the bridge, or None.

    Returns:
        tuple of `num_layers` entries.

    Raises:
        ValueError: invalid taps.
    """
    two_tower = (-1,) + (None,) * (num_layers - 1)
    if taps is None:
        taps = two_tower if bridge is None else range(-num_layers, 0)
    # NumPy integers cannot be saved in a configuration.
    taps = tuple(None if tap is None else operator.index(tap) for tap in taps)
    indices = [tap for tap in taps if tap is not None]
    rising = indices == sorted(set(indices)) and max(indices, default=0) < 0
    if len(taps) != num_layers or taps[0] is None or not rising:
        raise ValueError(
            f"`taps` must be {num_layers} negative indices that rise, and None "
            f"behind the first, as (-2, -1, None). Received: taps={taps}"
        )
    if bridge is None and taps != two_tower:
        raise ValueError(
            f"With `bridge=None` `taps` must be {two_tower}. Name a bridge to "
            f"tap more. Received: taps={taps}"
        )
    return taps
