"""Which inputs and labels the records of each task give to a model."""

import dataclasses
from collections.abc import Callable

import numpy as np

from keras_bridgetower.data.records.format import SECOND_TEXT


@dataclasses.dataclass(frozen=True)
class Target:
    """A form of labels.

    Args:
        of: callable of `(labels, item, origin)` that returns the label of one
            sample: the list of classes, a `records.Item`, and the number of
            the source as a string.
        dtype: str, of the batch; `"object"` for strings.
        shape: callable of the list of classes that returns the shape of one.
        names_classes: bool, whether labels are places in a list of classes.
    """

    of: Callable
    dtype: str
    shape: Callable = lambda labels: ()
    names_classes: bool = False


def _known(labels, item):
    ids = item.sample.labels
    if not all(0 <= i < len(labels) for i in ids):
        raise ValueError(
            f"its labels must be ids from 0 to {len(labels) - 1}. "
            f"Received: labels={ids}"
        )
    return list(ids)


def _soft_scores(labels, item, origin):
    # All 0 where no answer is in the list, as in an honest validation.
    scores = np.zeros(len(labels), "float32")
    scores[_known(labels, item)] = item.sample.scores or 1.0
    return scores


def _class_id(labels, item, origin):
    ids = _known(labels, item)
    if len(ids) != 1:
        raise ValueError(f"it must have one label. Received: labels={ids}")
    return ids[0]


def _image_id(labels, item, origin):
    # Keys are unique in a split, not in a stream of several.
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
    """What a model of a task reads.

    Args:
        names: tuple of `"images"`, `"text"` and `"second_text"`.
        target: str, the key of `TARGETS` that its labels usually have.
        pictures: tuple, axes of the pictures of one text: `()` or `(2,)`.
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
    """What a model of a reader's records reads.

    Whether texts come in pairs, the first text that can be read tells; one
    label alone stands for a grade.

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
        "No sample can be read. `python -m keras_bridgetower.data.build build` "
        "writes damaged shards again. Received: reader of "
        f"{reader.folder}:{reader.split}"
    )
