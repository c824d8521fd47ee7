"""Towers: encoders that return the states of several of their blocks.

`encoders.hidden_states` reads the states of an encoder. `Tower` picks those
that the bridges need.
"""

import itertools
import operator

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import layer_records
from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.layers import source_layer
from keras_bridgetower.backend.keras_private.models import PatchedModel
from keras_bridgetower.checks import BACKENDS
from keras_bridgetower.checks import check_choice
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.encoders.registry import hidden_states
from keras_bridgetower.models.attention import initializer
from keras_bridgetower.models.bridges import get_class
from keras_bridgetower.models.checks import are_states
from keras_bridgetower.models.checks import check_lengths
from keras_bridgetower.models.checks import check_pixel_dtype
from keras_bridgetower.models.managers import ManagerLayer

# Values of `positions`, for towers whose states are grids.
COLORS = "coordinates_and_colors"
POSITIONS = (None, "coordinates", COLORS)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class Tower(PatchedModel, keras.Model):
    """An encoder that returns the states of several of its blocks.

    The tower owns its encoder, and corrects its defaults where KerasHub's are
    not those of the published weights. States of a grid are resized to the
    grid of the highest one, and flattened row by row. Once frozen
    (`trainable = False`) it computes as in inference, without dropout.

    Args:
        encoder: an encoder with a rule in `hidden_states`.
        taps: sequence of negative ints and None: the states to return,
            counted from the top; None entries are skipped.
        norms: `"shared"`: the encoder's final norm is applied to every
            state; `"per_tap"`: each tapped state has a norm of its own,
            initialized as a copy of the final norm.
        summary: str, row 0 of each state, where poolers and
            embeddings read. Images: `"class"`, the encoder's class token;
            `"mean"` of all tokens; `"attention_pool"`, the mean weighted by a
            learned query; `"learned"`, a learned vector. Texts: `"start"`, the
            encoder's start token; `"mean"`; `"end"`, the last token that is
            not padding; `"last"`, the last of a fixed length. It replaces the
            encoder's own token, or is an additional row if there is none.
            None means the own token or the default of the encoder.
        positions: str, for states of a grid: `"coordinates"` appends channels
            that say where each token is, see `Coordinates`;
            `"coordinates_and_colors"` appends the mean of the three channels
            of the image there too, before them; None appends none.
        name: str, name of the model.
        trainable: bool, whether its weights can be trained.

    Call arguments:
        inputs: the image tensor `(batch, S, S, 3)`, or a dict of int tensors
            `(batch, tokens)`: `"token_ids"`, `"padding_mask"`, and
            `"segment_ids"` if the encoder takes them.

    Returns:
        List of float tensors `(batch, tokens, width)`, one for each index in
        `taps`.

    Raises:
        TypeError: no rule for the encoder.
        ValueError: an unsupported backend, `taps`, a `summary` or `positions`
            that the encoder does not have, or `"per_tap"` without a final
            norm.

    Example:

    ```python
    encoder = keras_hub.models.CLIPVisionEncoder(
        patch_size=8, hidden_dim=16, num_layers=3, num_heads=2,
        intermediate_dim=32, image_shape=(32, 32, 3))
    low, high = Tower(encoder, taps=(-2, -1))(np.ones((1, 32, 32, 3)))
    ```
    """

    def __init__(
        self,
        encoder,
        taps,
        norms="shared",
        summary=None,
        positions=None,
        name=None,
        trainable=True,
    ):
        check_choice("KERAS_BACKEND", keras.config.backend(), BACKENDS)
        entry = get_entry(encoder)
        entry.correct(encoder)
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
        own_token = "class" if entry.side == "image" else "start"
        prefix = entry.prefix_tokens(encoder)
        default = entry.summary or (own_token if prefix else "mean")
        chosen = summary or default
        allowed = [s for s in SUMMARIES[entry.side] if prefix or s != own_token]
        check_choice("summary", chosen, allowed)
        inputs = _inputs(encoder, entry.side)
        # A quantized encoder has a policy of integers; a summary stays float.
        policy = layer_records.float_policy(encoder)
        cls = SUMMARIES[entry.side][chosen]
        tapped = _flattened(tapped, positions, inputs)
        tapped = _summarized(tapped, cls, prefix, inputs, policy)
        super().__init__(
            inputs=inputs, outputs=tapped, name=name, trainable=trainable
        )
        # The dtype is that of the encoder, so there is no argument for it.
        self.dtype_policy = policy
        # Not tracked by Keras: otherwise blocks above the highest tap would
        # count as weights of the tower on some backends only.
        object.__setattr__(self, "encoder", encoder)
        self.taps, self.norms = tuple(taps), norms
        self.summary, self.given_summary = chosen, summary
        self.positions = positions
        # Rows before those of patches or words, such as a class token.
        self.prefix_tokens = max(prefix, 1)

    @property
    def blocks(self):
        """The layers of the encoder that contain attention."""
        return [
            layer
            for layer in self.layers
            if any(
                # Not all attention of KerasHub is Keras' own.
                hasattr(part, "num_heads")
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
            **({"summary": self.given_summary} if self.given_summary else {}),
            **({"positions": self.positions} if self.positions else {}),
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
        given = inputs["token_ids"] if isinstance(inputs, dict) else inputs
        if are_states(given):
            return self._split(given)
        if isinstance(inputs, dict):
            # Features of a task hold those of the other tower too.
            inputs = {k: x for k, x in inputs.items() if k in self.input}
        if len(getattr(inputs, "shape", ())) == 4:
            check_pixel_dtype(inputs, self.encoder)
        return super().__call__(inputs, *args, **kwargs)

    def call(self, inputs, training=None, mask=None):
        check_lengths(inputs, self.encoder)
        # A frozen tower has no dropout, as a frozen batch norm of Keras has no
        # statistics of batches: its states are those that can be kept.
        training = training and self.trainable
        return _as_list(super().call(inputs, training=training, mask=mask))

    def _split(self, states):
        """Split what `joined_states` has joined."""
        widths = [x.shape[-1] for x in self.outputs[:-1]]
        places = list(itertools.accumulate(widths))
        parts = ops.split(states, places, axis=-1) if places else [states]
        outputs = zip(parts, self.outputs, strict=True)
        return [ops.cast(x, output.dtype) for x, output in outputs]

    def compute_output_spec(self, inputs, training=None, mask=None):
        spec = super().compute_output_spec(inputs, training=training, mask=mask)
        return _as_list(spec)


def joined_states(states):
    """Join the states of a tower to one float32 tensor, to keep them.

    A tower that is called with it, in place of an image tensor or of
    `"token_ids"`, returns the states again.

    Args:
        states: list of float tensors `(batch, tokens, width)`.

    Returns:
        float32 tensor `(batch, tokens, sum of widths)`.
    """
    return ops.concatenate([ops.cast(x, "float32") for x in states], axis=-1)


def _as_list(outputs):
    # A functional model with a single output returns the tensor itself.
    return list(outputs) if isinstance(outputs, (list, tuple)) else [outputs]


def _inputs(encoder, side):
    """Return the inputs of a tower; a text always has a padding mask."""
    if side == "image":
        return encoder.inputs[0]
    given = encoder.input
    if not isinstance(given, dict):
        given = {"token_ids": encoder.inputs[0]}
    if "padding_mask" in given:
        return given
    mask = keras.Input((None,), dtype="int32", name="padding_mask")
    return {**given, "padding_mask": mask}


def _flattened(states, positions, image):
    """Return states as lists of tokens; grids get the size of the highest.

    Args:
        states: list of symbolic tensors.
        positions: as `Tower`.
        image: the symbolic image tensor.
    """
    is_grid = len(states[-1].shape) == 4
    check_choice("positions", positions, POSITIONS if is_grid else (None,))
    if not is_grid:
        return states
    size = states[-1].shape[1:3]
    if None in size:
        raise ValueError(
            "`image_encoder` must have images of one size: pass it a full "
            "`image_shape` or `input_shape`. Received: a grid of shape "
            f"{states[-1].shape}"
        )

    def each(cls, name, states):
        return [
            cls(size, dtype=x.dtype, name=f"tap_{i}_{name}")(x)
            for i, x in enumerate(states)
        ]

    states = each(SameGrid, "grid", states)
    if positions == COLORS:
        colors = SameGrid(size, dtype=states[0].dtype, name="colors")(image)
        join = keras.layers.Concatenate
        states = [
            join(dtype=x.dtype, name=f"tap_{i}_colors")([x, colors])
            for i, x in enumerate(states)
        ]
    return each(Coordinates, "places", states) if positions else states


def _summarized(states, cls, prefix, inputs, policy):
    """Put a summary at row 0 of each state.

    Args:
        states: list of symbolic tensors `(batch, tokens, width)`.
        cls: subclass of `Summary`, or None for the encoder's own token.
        prefix: int, rows of the encoder's own before patches or words.
        inputs: the inputs of the tower.
        policy: dtype policy of the summaries, that of the encoder.
    """
    if cls is None:
        return states
    replaces = min(prefix, 1)
    mask = ()
    if isinstance(inputs, dict):
        # Without a start token of the encoder's own, the first id of a text
        # is one that the encoder does not see.
        mask = (inputs["padding_mask"][:, 1 - replaces :],)
    return [
        cls(replaces, dtype=policy, name=f"tap_{i}_summary")(x, *mask)
        for i, x in enumerate(states)
    ]


def _with_own_norm(state, index):
    """Return a state with its own copy of the final norm."""
    shared, (source,) = source_layer(state)
    if not isinstance(shared, keras.layers.LayerNormalization):
        raise ValueError(
            "`norms` must be 'shared' for an encoder without a final layer "
            f"norm. Received: norms='per_tap', a state of {shared.name}"
        )
    norm = keras.layers.LayerNormalization.from_config(
        {**shared.get_config(), "name": f"tap_{index}_norm"}
    )
    norm.build(source.shape)
    for own, copied in zip(norm.weights, shared.weights, strict=True):
        # On JAX both would share an array, which a step of the tower deletes.
        own.assign(ops.copy(copied))
    return norm(source)


def resolve_taps(taps, num_layers, bridge, name="taps"):
    """Check taps and return them as a tuple with one entry per layer.

    Args:
        taps: sequence of negative ints and None, or None for the default.
        num_layers: int, number of cross-modal layers.
        bridge: the bridge, or None.
        name: str, the argument with the taps, for errors.

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
    if bridge is None:
        right, must = taps == two_tower, f"{two_tower} without a bridge"
    elif issubclass(get_class(bridge), ManagerLayer):
        right = rising and len(indices) == len(taps)
        must = "negative indices that rise, as (-3, -2, -1), with managers"
    else:
        right = rising and len(taps) == num_layers and taps[0] is not None
        must = (
            f"{num_layers} negative indices that rise, and None behind the "
            "first, as (-2, -1, None)"
        )
    if not right:
        raise ValueError(f"`{name}` must be {must}. Received: {name}={taps}")
    return taps


class Summary(keras.layers.Layer):
    """Abstract: puts a summary of a state at row 0, for poolers and embeddings.

    CLIP, ViT and BERT learn a class token or a start token. Other encoders have
    none, or one without information: the start token of a causal text encoder
    is the same for every text. There a summary takes its place.

    Args:
        replaces: int, the rows at the start that it replaces: 1 if row 0 is a
            class token or a start token, else 0.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        x: float tensor `(batch, tokens, width)`.
        padding_mask: int tensor `(batch, tokens)`, that of a text; None
            for an image.

    Returns:
        Float tensor `(batch, 1 - replaces + tokens, width)`.
    """

    def __init__(self, replaces=0, **kwargs):
        super().__init__(**kwargs)
        self.replaces = replaces

    def build(self, x_shape, padding_mask_shape=None):
        """Create the weights of `summarize`, if it has some."""

    def call(self, x, padding_mask=None):
        row = ops.cast(self.summarize(x, padding_mask), x.dtype)
        if not self.replaces:
            return ops.concatenate([row, x], axis=1)
        # Without a slice, which would forbid some lengths in an exported file.
        position = ops.cumsum(ops.ones_like(x[..., :1]), axis=1)
        return ops.where(position == 1, row, x)

    def summarize(self, x, mask):
        """Return the row `(batch, 1, width)`."""
        raise NotImplementedError

    def compute_output_shape(self, x_shape, padding_mask_shape=None):
        batch, tokens, width = x_shape
        if tokens is not None:
            tokens += 1 - self.replaces
        return batch, tokens, width


_register = keras.saving.register_keras_serializable("keras_bridgetower")


@_register
class MeanSummary(Summary):
    """The mean of all tokens that are not padding."""

    def summarize(self, x, mask):
        if mask is None:
            return ops.mean(x, axis=1, keepdims=True)
        weights = ops.expand_dims(ops.cast(mask, x.dtype), -1)
        total = ops.sum(x * weights, axis=1, keepdims=True)
        return total / ops.sum(weights, axis=1, keepdims=True)


@_register
class EndSummary(Summary):
    """The last token that is not padding: the end token of a text."""

    def summarize(self, x, mask):
        mask = ops.cast(mask, "int32")
        last = ops.cumsum(mask, axis=1) == ops.sum(mask, axis=1, keepdims=True)
        only = ops.where(last & (mask == 1), 1.0, 0.0)[..., None]
        return ops.sum(x * ops.cast(only, x.dtype), axis=1, keepdims=True)


@_register
class LastSummary(Summary):
    """The last token, padding or not, of a text of fixed length."""

    def summarize(self, x, mask):
        return x[:, -1:]


@_register
class LearnedSummary(Summary):
    """A learned vector, the same for each image, initially random."""

    def build(self, x_shape, padding_mask_shape=None):
        self.token = self.add_weight(
            shape=(1, 1, x_shape[-1]), initializer=initializer(), name="token"
        )

    def summarize(self, x, mask):
        return ops.broadcast_to(
            ops.cast(self.token, x.dtype), (ops.shape(x)[0], 1, x.shape[-1])
        )


@_register
class AttentionPoolSummary(Summary):
    """The sum of all tokens, weighted by a learned query (one head)."""

    def build(self, x_shape, padding_mask_shape=None):
        self.query = self.add_weight(
            shape=(x_shape[-1], 1), initializer="zeros", name="query"
        )

    def summarize(self, x, mask):
        scores = ops.matmul(x, ops.cast(self.query, x.dtype))
        scores = scores / np.sqrt(x.shape[-1])
        weights = ops.softmax(scores, axis=1)
        return ops.sum(weights * x, axis=1, keepdims=True)


# `class` and `start` are the encoder's own tokens.
IMAGE_SUMMARIES = {
    "class": None,
    "mean": MeanSummary,
    "attention_pool": AttentionPoolSummary,
    "learned": LearnedSummary,
}
TEXT_SUMMARIES = {
    "start": None,
    "mean": MeanSummary,
    "end": EndSummary,
    "last": LastSummary,
}
SUMMARIES = {"image": IMAGE_SUMMARIES, "text": TEXT_SUMMARIES}


@_register
class SameGrid(keras.layers.Layer):
    """Resize a grid of states to another one, by averages over areas.

    Args:
        size: tuple of int, height and width of the new grid.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        x: float tensor `(batch, height, width, channels)`.

    Returns:
        Float tensor `(batch, tokens, channels)`, row by row.
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)

    def build(self, x_shape):
        # While a model is traced, `x.shape` may hold tensors.
        self.sides = tuple(x_shape[1:3])

    def call(self, x):
        if self.sides != self.size:
            rows, columns = (
                ops.cast(_areas(old, new), x.dtype)
                for old, new in zip(self.sides, self.size, strict=True)
            )
            # In one step PyTorch would fix the batch size of an exported file.
            x = ops.einsum("ah,nhwc->nawc", rows, x)
            x = ops.einsum("bw,nawc->nabc", columns, x)
        return ops.reshape(x, (-1, self.size[0] * self.size[1], x.shape[-1]))

    def compute_output_shape(self, x_shape):
        return x_shape[0], self.size[0] * self.size[1], x_shape[-1]


@_register
class Coordinates(keras.layers.Layer):
    """Append the position of each token of a grid, as ten channels.

    They are the coordinates from -1 to 1, and sines and cosines of one and two
    half waves over the image. The states of convolutions hardly say where they
    are; a projection behind this layer learns to read it.

    Args:
        size: tuple of int, height and width of the grid.
        **kwargs: `name` and `dtype` of the layer.

    Call arguments:
        x: float tensor `(batch, tokens, channels)`, row by row.

    Returns:
        Float tensor `(batch, tokens, channels + 10)`.

    Source: CoordConv (Liu et al., 2018).
    """

    def __init__(self, size, **kwargs):
        super().__init__(**kwargs)
        self.size = tuple(size)
        # Centers of cells from -1 to 1.
        centers = ((np.arange(n) + 0.5) * (2 / n) - 1 for n in self.size)
        centers = np.stack(np.meshgrid(*centers, indexing="ij"), -1)
        centers = centers.reshape(-1, 2)
        angles = np.concatenate([np.pi / 2 * centers, np.pi * centers], -1)
        self.channels = np.concatenate(
            [centers, np.sin(angles), np.cos(angles)], -1
        )

    def call(self, x):
        channels = ops.cast(self.channels, x.dtype)
        shape = ops.shape(x)[0], *self.channels.shape
        return ops.concatenate([x, ops.broadcast_to(channels, shape)], axis=-1)

    def compute_output_shape(self, x_shape):
        return *x_shape[:-1], x_shape[-1] + self.channels.shape[-1]


def _areas(old, new):
    """Return the shares `(new, old)` of old cells in each new one."""
    edges = np.arange(new + 1) * (old / new)
    cells = np.arange(old)
    overlap = np.minimum(edges[1:, None], cells + 1)
    overlap = overlap - np.maximum(edges[:-1, None], cells)
    return np.maximum(overlap, 0) * (new / old)
