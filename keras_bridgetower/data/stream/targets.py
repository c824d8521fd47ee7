"""Defines the inputs and labels that records of each task become."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_bridgetower.data.records.format import SECOND_TEXT


@dataclasses.dataclass(frozen=True)
class Target:
    """A form of labels, and how it is made from a sample.

    Args:
        of: callable that takes the list of classes, an `Item` and the number
            of its source as a string, and returns the label.
        dtype: str, dtype of a batch of labels; `"object"` for strings.
        shape: callable that takes the list of classes and returns the shape
            of one label.
        names_classes: bool, whether labels are positions in a list of classes.
    """

    of: Callable
    dtype: str
    shape: Callable = lambda labels: ()
    names_classes: bool = False


def _checked_ids(labels, item):
    ids = item.sample.labels
    if not all(0 <= i < len(labels) for i in ids):
        raise ValueError(
            f"its labels must be ids from 0 to {len(labels) - 1}. "
            f"Received: labels={ids}"
        )
    return list(ids)


def _soft_scores(labels, item, origin):
    # All scores are 0 if no answer is in the list, which honest validation has.
    scores = np.zeros(len(labels), "float32")
    scores[_checked_ids(labels, item)] = item.sample.scores or 1.0
    return scores


def _class_id(labels, item, origin):
    ids = _checked_ids(labels, item)
    if len(ids) != 1:
        raise ValueError(f"it must have one label. Received: labels={ids}")
    return ids[0]


def _image_id(labels, item, origin):
    # Keys are unique in one split; a stream may have several.
    return f"{origin}/{item.key}".encode()


def _number(labels, item, origin):
    if len(item.sample.scores) != 1:
        raise ValueError(
            "it must have one score, a number. "
            f"Received: scores={item.sample.scores}"
        )
    return item.sample.scores[0]


TARGETS = {
    "soft_scores": Target(
        _soft_scores, "float32", lambda labels: (len(labels),), True
    ),
    "class_id": Target(_class_id, "int32", names_classes=True),
    "image_id": Target(_image_id, "object"),
    "number": Target(_number, "float32"),
}


@dataclasses.dataclass(frozen=True)
class Inputs:
    """The inputs of a model for one task.

    Args:
        names: tuple of some of `"images"`, `"text"` and `"second_text"`.
        target: str, key in `TARGETS` of the usual form of labels.
        pictures: tuple, `(2,)` if each text has two pictures, else `()`.
    """

    names: tuple
    target: str
    pictures: tuple = ()


_PAIRS = ("images", "text")
# By the task of the records.
INPUTS = {
    "vqa": Inputs(_PAIRS, "soft_scores"),
    "captions": Inputs(_PAIRS, "image_id"),
    "entailment": Inputs(_PAIRS, "class_id"),
    "nlvr2": Inputs(_PAIRS, "class_id", (2,)),
    "image_classification": Inputs(("images",), "class_id"),
    "text_classification": Inputs(("text",), "class_id"),
}


def inputs_of(reader):
    """The inputs of a model for the records of a reader.

    Text classifiers read two texts if the first readable record has two. If
    there is one label only, it is a regression.

    Args:
        reader: a `RecordReader`.

    Returns:
        `Inputs`.
    """
    inputs = INPUTS[reader.task]
    if inputs.names != ("text",):
        return inputs
    target = "number" if len(reader.labels) == 1 else inputs.target
    names = ("text", "second_text")
    parts = len(_first_text(reader).split(SECOND_TEXT, 1))
    return Inputs(names[:parts], target)


def _first_text(reader):
    for i in range(reader.num_samples):
        try:
            return reader.sample(i).sample.text
        except ValueError:
            continue
    raise ValueError(
        "No sample can be read. `keras-bridgetower data build` "
        "writes damaged shards again. Received: reader of "
        f"{reader.folder}:{reader.split}"
    )
