"""The registry of encoders: one entry for each class."""

import dataclasses
import functools
from collections.abc import Callable
from typing import NamedTuple

from keras_bridgetower.backend.keras_private.attention import choose_attention
from keras_bridgetower.checks import check_choice

# Means and deviations of pixels with which encoders were trained.
IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
# Of EfficientNet-Lite, in pixels 127 and 128.
LITE = {"mean": (127 / 255,) * 3, "std": (128 / 255,) * 3}
# To the range from -1 to 1.
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}


def patch_size(encoder):
    """Return the side of an encoder's square patches in pixels, or 1."""
    size = getattr(encoder, "patch_size", 1)
    return size if isinstance(size, int) else size[0]


class Value(NamedTuple):
    """A value of a configuration that an encoder's constructor needs.

    Args:
        argument: str, the constructor argument that takes it, or None.
        default: the value of `transformers` where a file omits it.
        allowed: tuple of the values that KerasHub's class can compute, or
            None for any.
    """

    argument: str | None
    default: object
    allowed: tuple | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
    """The tokenizer with which a text encoder was trained.

    Args:
        kind: str, how texts are split: a key of
            `convert.tokenizer_rules.FAMILIES`.
        adds_start: bool, whether there is no start token. A packed text then
            begins with one that the encoder does not see.
        has_segments: bool, whether the encoder reads `segment_ids`.
        ids: tuple of str, the ids of special tokens in `config.json` that must
            be the tokenizer's.
        positions: int, positions of tokens if `config.json` has none.
    """

    kind: str
    adds_start: bool = False
    has_segments: bool = False
    ids: tuple = ("pad_token_id",)
    positions: int = 512


# The ids of special tokens that most configurations name.
SPECIAL_IDS = ("bos_token_id", "pad_token_id", "eos_token_id")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Files:
    """The files of `transformers` with the weights of an encoder.

    Sizes come from the shapes of tensors, and the configuration must agree. For
    a pyramid they come from the configuration, and the shapes must agree.

    Args:
        types: tuple of str, the `model_type` of the configurations. Empty for
            a state dict without one.
        rules: function of a dict of sizes and constructor arguments that
            returns a list of `Rule`.
        mark: str, name of a tensor that only such a state dict has.
        sizes: dict from names of tensors to the names of the sizes of their
            axes: constructor arguments of the encoder or `positions`. Names
            that begin with `_` are for `rules` alone.
        layers: str, the start of the names of tensors of layers; the number
            of the layer follows it. Or a dict from sizes to such starts.
        measure: function of a dict from names of tensors to shapes that
            returns further sizes.
        values: dict from names in the configuration to `Value`, whose argument
            may begin with `_` too.
        claims: dict from further names in the configuration to names of sizes,
            which must agree.
        arguments: function of a configuration and a dict of sizes that returns
            constructor arguments, new ones or in place of sizes; None removes
            one. It raises ValueError for a configuration that KerasHub's
            class cannot compute.
        prefix: str, with which the names of tensors may begin.
        parts: tuple of str, the parts of the configuration that may describe
            the encoder, such as `"vision_config"`. The first one counts.
        before: function from a configuration to the number of rows of the
            table of positions before those of tokens or patches.
        unread: tuple of regular expressions of the names of tensors that the
            encoder does not use.
        pixels: dict, in place of that of `Encoder`.
        tokens: `Tokens` of a text encoder.
        classifier: str, the start of the names of the two tensors of a linear
            classifier on the mean of the highest map, if there may be one.
    """

    types: tuple = ()
    rules: Callable
    mark: str = ""
    sizes: dict = dataclasses.field(default_factory=dict)
    layers: str | dict = dataclasses.field(default_factory=dict)
    measure: Callable = lambda shapes: {}
    values: dict = dataclasses.field(default_factory=dict)
    claims: dict = dataclasses.field(default_factory=dict)
    arguments: Callable = lambda config, sizes: {}
    prefix: str = ""
    parts: tuple = ()
    before: Callable = lambda config: 0
    unread: tuple = ()
    pixels: dict = dataclasses.field(default_factory=dict)
    tokens: Tokens | None = None
    classifier: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Encoder:
    """Facts about a class of encoders.

    Args:
        side: `"image"` or `"text"`.
        prefix_tokens: function from an encoder to the number of rows of its
            states before those of patches or words: a class token or a start
            token, and registers. If it is 0, the tower adds a row.
        summary: str, row 0 by default, a name in
            `models.towers.SUMMARIES`. None means the encoder's own token.
        side_step: function from an encoder to the number of pixels of which
            the side of its images must be a multiple.
        correct: function that corrects KerasHub's defaults in an encoder.
        sized: function from an image shape `(S, S, 3)` to the constructor
            arguments of an encoder for it.
        antialias: function from an encoder to whether its positions are
            resized with anti-aliasing.
        not_exported: tuple of str, the backends on which KerasHub's class
            cannot be traced for texts of any length.
        fixed_length: bool, whether a text must fill all positions of the
            encoder, because it was trained without a padding mask.
        files: tuple of `Files`.
        unused: tuple of str, names of layers of KerasHub's class that no state
            reads, such as a pooler. Their weights become 0.
        pixels: dict, the values of `BridgeTowerImageConverter`, such as `mean`
            and `std`, with which the published weights were trained.
        name: str, the encoder's usual name in documents.
    """

    side: str
    prefix_tokens: Callable = lambda encoder: 1
    summary: str | None = None
    side_step: Callable = patch_size
    correct: Callable = lambda encoder: None
    sized: Callable = lambda shape: {"image_shape": shape}
    antialias: Callable = lambda encoder: False
    not_exported: tuple = ()
    fixed_length: bool = False
    files: tuple = ()
    unused: tuple = ()
    pixels: dict = dataclasses.field(default_factory=dict)
    name: str = ""


# From the class of an encoder to its `Encoder`.
_ENTRIES = {}


def _by_own_attention(states):
    # It has the attributes of `states`, such as `register`.
    @functools.wraps(states)
    def wrapped(encoder):
        choose_attention(encoder)
        return states(encoder)

    return wrapped


@_by_own_attention
@functools.singledispatch
def hidden_states(encoder):
    """Return the outputs of an encoder's blocks, as bridges read them.

    To support another encoder, register a rule for its class:

    ```python
    @hidden_states.register(MyEncoder)
    def _(encoder):
        return [encoder.final_norm(block.output) for block in encoder.blocks]
    ```

    An encoder without a class token is registered with `register_encoder`.

    Args:
        encoder: a functional encoder, such as a `keras_hub` backbone.

    Returns:
        List of symbolic tensors `(batch, tokens, width)`, of a grid `(batch,
        height, width, channels)`, lowest block first, connected to the inputs
        of `encoder`. For pre-norm encoders the final norm of the encoder is
        applied to every state. The encoder does not change, except that on
        a TPU its attention avoids a kernel of Keras with wrong values.

    Raises:
        TypeError: there is no rule for this class.

    Example:

    ```python
    states = hidden_states(keras_hub.models.RobertaBackbone(
        vocabulary_size=100, num_layers=2, num_heads=2, hidden_dim=16,
        intermediate_dim=32))
    ```
    """
    raise TypeError(no_rule(type(encoder)))


def no_rule(cls):
    """Return the error text for a class of encoders without a rule."""
    known = sorted({c.__name__ for c in hidden_states.registry} - {"object"})
    return (
        f"The encoder must be one of {known} (of a CLIPBackbone its `vision_"
        "encoder` or `text_encoder`), or have a rule of `hidden_states`: see "
        f"docs/own_work.md. Received: {cls.__name__}"
    )


def has_rule(cls):
    """Return True if a class of encoders has a rule in `hidden_states`."""
    return hidden_states.dispatch(cls) is not hidden_states.dispatch(object)


def register_encoder(cls, side, **values):
    """Return a decorator that registers the rule of a class of encoders.

    `hidden_states.register(cls)` is enough for an encoder whose states begin
    with a class token or a start token.

    Args:
        cls: the class of the encoder.
        side: `"image"` or `"text"`.
        **values: of `Encoder`, such as `prefix_tokens` and `summary`.

    Example:

    ```python
    @register_encoder(MyGrid, "image", prefix_tokens=lambda encoder: 0)
    def _(encoder):
        return [block.output for block in encoder.blocks]
    ```
    """

    def register(rule):
        _ENTRIES[cls] = Encoder(side=side, **values)
        return hidden_states.register(cls)(rule)

    return register


def get_entry(encoder):
    """Return the `Encoder` of an encoder's class or nearest base class.

    Raises:
        TypeError: there is no rule for this class.
        ValueError: channels come before the pixels.
    """
    if not has_rule(type(encoder)):
        raise TypeError(no_rule(type(encoder)))
    last = "channels_last"
    check_choice("data_format", getattr(encoder, "data_format", last), (last,))
    for cls in type(encoder).__mro__:
        if cls in _ENTRIES:
            return _ENTRIES[cls]
        if cls in hidden_states.registry:
            break
    return Encoder(
        side="image" if len(encoder.inputs[0].shape) == 4 else "text"
    )


def text_length(encoder):
    """Return how many tokens a text may have, or None if there is no limit.

    An encoder without a start token does not read the first id.
    """
    positions = getattr(encoder, "max_sequence_length", None)
    if positions is None:
        return None
    return positions + (not get_entry(encoder).prefix_tokens(encoder))


def entries(side):
    """Return a dict from classes of encoders of a side to their `Encoder`."""
    return {c: e for c, e in _ENTRIES.items() if e.side == side}


def files_by_type(side):
    """Return a dict from model types of a side to `(class, Files)`."""
    return {
        kind: (cls, files)
        for cls, entry in entries(side).items()
        for files in entry.files
        for kind in files.types
    }
