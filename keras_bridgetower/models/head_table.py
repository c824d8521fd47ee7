"""The table of heads: builds a head from its name and its plain values.

A preset stores names and values in `heads.json`.
"""

import functools
import inspect
import re

import keras

from keras_bridgetower.backend.keras_private import variables
from keras_bridgetower.checks import check_choice
from keras_bridgetower.models import heads
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import registry

# What the matching head reads: the pooled representation, or also the product
# of the contrastive vectors, from which its score starts, or also words.
MATCHING = ("fused", "similarity_and_fused", "word_similarity_and_fused")


def make(name, backbone, awaited=None, /, **values):
    """Build a head for a backbone.

    Args:
        name: str, one of `BUILT_IN`: vqa, entailment, nlvr2, itm, rank, mlm,
            itc, image_class, text_class, text_number; or one of your own, see
            `register_head`.
        backbone: a `BridgeTowerBackbone`.
        awaited: as for `make_all`.
        **values: plain values of the head, as in `heads.json` of a preset.

    Returns:
        The layer, built, named `<name>_head`.
    """
    head, shape = _maker(name)(backbone, **values)
    if head.name != f"{name}_head":
        raise ValueError(
            f"The head {name!r} must be a layer of the name '{name}_head'. "
            f"Received: name={head.name!r}"
        )
    saved, room = awaited or ({}, None)
    loaded = agrees_with_saved(name, saved.get(name), values)

    def built():
        head.build(shape)
        return head

    return variables.without_initialization(built, loaded, room)


def _common(backbone, name):
    """Return the name and the dtype policy of a head, as plain values."""
    dtype = keras.dtype_policies.serialize(backbone.fusion.dtype_policy)
    return {"dtype": dtype, "name": f"{name}_head"}


def _width(tower):
    return tower.outputs[-1].shape[-1]


def _classifier(
    name,
    pairs,
    backbone,
    num_classes,
    head_hidden_scale=2,
    dropout=0.0,
    answers=None,
):
    width = 2 * backbone.fusion.hidden_dim
    hidden = int(width * head_hidden_scale)
    common = _common(backbone, name)
    head = heads.ClassifierHead(num_classes, hidden, dropout, **common)
    return head, (None, pairs * width)


def _linear(name, num_classes, backbone):
    head = heads.LinearHead(num_classes, **_common(backbone, name))
    return head, (None, 2 * backbone.fusion.hidden_dim)


def matching_values(matching):
    """Return the values of a matching head; files of the default name none."""
    return {} if matching == "fused" else {"matching": matching}


def _matching(backbone, matching="fused"):
    check_choice("matching", matching, MATCHING)
    if matching == "fused":
        return _linear("itm", 2, backbone)
    head = heads.SimilarityHead(
        words=matching.startswith("word"), **_common(backbone, "itm")
    )
    return head, {"pooled": (None, 2 * backbone.fusion.hidden_dim)}


def _mlm(backbone, epsilon=1e-5):
    size = backbone.text_encoder.vocabulary_size
    head = heads.MaskedLMHead(size, epsilon, **_common(backbone, "mlm"))
    return head, (None, None, backbone.fusion.hidden_dim)


def _itc(backbone, projection_dim=512, ways="three_way"):
    head = heads.ContrastiveHead(
        projection_dim, ways, **_common(backbone, "itc")
    )
    width = backbone.fusion.hidden_dim
    # The authors embed the tower's image state, transformers the state after
    # the fusion's projection.
    image = {"three_way": width, "two_way": _width(backbone.image_tower)}[ways]
    return head, {
        "text": (None, _width(backbone.text_tower)),
        "image": (None, image),
        "fused": (None, 2 * width),
    }


def _image_class(backbone, num_classes, labels=None):
    head = heads.LinearHead(num_classes, **_common(backbone, "image_class"))
    return head, (None, _width(backbone.image_tower))


def _text(name, backbone, num_classes, dropout=0.1, labels=None):
    head = heads.TextHead(num_classes, dropout, **_common(backbone, name))
    return head, (None, None, _width(backbone.text_tower))


# Functions of a backbone and, by keyword, the plain values of a head.
BUILT_IN = {
    "vqa": functools.partial(_classifier, "vqa", 1),
    "entailment": functools.partial(_classifier, "entailment", 1),
    "nlvr2": functools.partial(_classifier, "nlvr2", 2),
    "itm": _matching,
    "rank": functools.partial(_linear, "rank", 1),
    "mlm": _mlm,
    "itc": _itc,
    "image_class": _image_class,
    "text_class": functools.partial(_text, "text_class"),
    "text_number": functools.partial(_text, "text_number"),
}
_registered = {}
# A head's name begins the paths of its weights and is the name of a Python
# attribute.
_NAME = re.compile(r"[a-z][a-z0-9_]*")


def register_head(name):
    """Register a head for a task of your own.

    Presets store the name. Import the file that registers it before you open
    such a preset.

    Args:
        name: str of lowercase letters, digits and underscores, not in
            `BUILT_IN`. Registering a name again replaces its function.

    Returns:
        Decorator of a function that takes a backbone and, by keyword, the
        head's plain values. The function returns a layer named
        `<name>_head`, not built yet, and the input shape to build it for.

    Raises:
        ValueError: an invalid name.

    Example:

    ```python
    @register_head("count")
    def count_head(backbone, most=9):
        head = LinearHead(
            most + 1, dtype=backbone.dtype_policy, name="count_head")
        return head, (None, 2 * backbone.fusion.hidden_dim)
    ```
    """
    taken = name in BUILT_IN or hasattr(HeadSet({}), name)
    if taken or not _NAME.fullmatch(name):
        raise ValueError(
            "`name` must be of lowercase letters, digits and underscores, and "
            f"new to a Keras layer. Received: name={name!r:.100}"
        )

    def register(maker):
        _registered[name] = maker
        return maker

    return register


def _maker(name):
    """Return the function that makes the head of this name."""
    known = {**BUILT_IN, **_registered}
    if name not in known:
        raise ValueError(
            f"`name` must be one of {', '.join(known)}, or registered by "
            "`keras_bridgetower.register_head`: import the file that does. "
            f"Received: name={name!r:.100}"
        )
    return known[name]


def saved_heads(folder):
    """Read the heads of a preset.

    Args:
        folder: `PresetFolder`.

    Returns:
        dict from name to a dict of plain values.
    """
    saved = folder.json(registry.HEADS, {})
    with folder.reading(registry.HEADS):
        configs.check_values(saved)
        for name, values in saved.items():
            # The first parameter is the backbone.
            inspect.signature(_maker(name)).bind(None, **values)
    return saved


def agrees_with_saved(name, saved, values):
    """Return True if stored values equal those of a head, with defaults.

    A stored None agrees with any value: a converted checkpoint may not name
    its answers.
    """
    if saved is None:
        return False
    parameters = inspect.signature(_maker(name)).parameters.values()
    defaults = {
        p.name: p.default for p in parameters if p.default is not p.empty
    }
    saved, values = defaults | saved, defaults | values
    return all(
        value is None or values.get(key) == value
        for key, value in saved.items()
    )


def make_all(values, backbone, awaited=None):
    """Build a `HeadSet` from a dict of heads' names and plain values.

    Args:
        values: dict from name to plain values.
        backbone: a `BridgeTowerBackbone`.
        awaited: `(saved, room)`, or None. `saved` is a dict as `values`, of
            a preset: heads with these values are not initialized, as they
            will be loaded. `room` is that of `without_initialization`, for
            each of them.
    """
    return HeadSet(
        {name: make(name, backbone, awaited, **v) for name, v in values.items()}
    )


class HeadSet(keras.layers.Layer):
    """The heads of a task, stored by name.

    Args:
        layers: dict from name to layer.
    """

    def __init__(self, layers):
        policies = [head.dtype_policy for head in layers.values()]
        super().__init__(name="heads", dtype=policies[0] if policies else None)
        for name, head in layers.items():
            setattr(self, name, head)
        self._names = tuple(layers)
        self.built = True

    def __getitem__(self, name):
        return getattr(self, name)

    def __iter__(self):
        return iter(self._names)

    def save(self, path):
        """Save all heads to a `.weights.h5` file."""
        keras.saving.save_weights(self, path)

    def load(self, path, without=()):
        """Load these heads, except `without`, from a file of heads."""
        named = {n: self[n] for n in self._names if n not in without}
        if named:
            keras.saving.load_weights(HeadSet(named), path)
