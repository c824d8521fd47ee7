"""Makes rows of batches from samples, and counts the samples it leaves out."""

import contextlib
import dataclasses
import functools
import logging
import os
import threading
from collections.abc import Callable

import numpy as np

from keras_bridgetower.data.records.format import SECOND_TEXT
from keras_bridgetower.preprocessing.geometry import UnfitPicture
from keras_bridgetower.preprocessing.geometry import check_transform
from keras_bridgetower.preprocessing.images import decode_image
from keras_bridgetower.preprocessing.texts import checked_texts

LOGGER = logging.getLogger("keras_bridgetower.data")
# Maximum size of the batches in memory in bytes, and how many finished batches
# wait there.
_MOST, _WAITING = 4 * 2**30, 2


class RowMaker:
    """Makes rows of batches, and leaves out samples that cannot be read.

    Args:
        readers: list of `RecordReader`. Samples are numbered across all.
        inputs: `Inputs` of the model.
        targets: list with one `Target`, or empty.
        transform: an `augment.Transform`; None if there are no pictures.
        seed: int, seed of the transform's random draws.
        report: a `DamageReport`, to which bad samples are added.

    Attributes:
        specs: list of `(dtype, shape)`, one per column; the dtype of strings
            is `"object"`.
    """

    def __init__(self, readers, inputs, targets, transform, seed, report):
        self.readers = readers
        self.labels = readers[0].labels
        self.inputs = inputs
        self.targets = targets
        self.transform = transform
        self.seed = seed
        self.report = report
        counts = [reader.num_samples for reader in readers]
        self._first = np.cumsum([0, *counts])
        side = transform and transform.image_size
        kinds = {
            "images": ("uint8", (*inputs.pictures, side, side, 3)),
            "text": ("object", ()),
            "second_text": ("object", ()),
        }
        self._makers = {
            "images": self._pictures,
            "text": functools.partial(self._text, 0),
            "second_text": functools.partial(self._text, 1),
        }
        self._text_count = len(set(inputs.names) & {"text", "second_text"})
        self.specs = [
            *(kinds[name] for name in inputs.names),
            *((t.dtype, t.shape(self.labels)) for t in targets),
        ]

    def readable_rows(self, samples, passes):
        """Yield the rows of the samples that can be read.

        Args:
            samples, passes: int arrays, as `EpochOrder` returns.

        Yields:
            tuples with one value per column.
        """
        for number, seen in zip(samples.tolist(), passes.tolist(), strict=True):
            source, inside = self._locate(number)
            reader = self.readers[source]
            name = f"#{inside}"
            try:
                with reading_record():
                    item = reader.sample(inside)
                name = item.sample.id
                yield self._row(item, source, [self.seed, seen, number])
            # Errors of settings or of this library are not caught.
            except BadRecord as error:
                place = f"{reader.folder}:{reader.split}"
                self.report.add(number, BadSample(name, place, str(error)))

    def name(self, number):
        """Return the id of a sample, or its number if it cannot be read."""
        source, inside = self._locate(number)
        try:
            return self.readers[source].sample(inside).sample.id
        except ValueError:
            return f"#{inside}"

    def _locate(self, number):
        source = int(np.searchsorted(self._first, number, "right")) - 1
        return source, int(number - self._first[source])

    def _row(self, item, source, seed):
        inputs = [self._makers[name](item, seed) for name in self.inputs.names]
        with reading_record():
            labels = [
                target.make(self.labels, item, str(source))
                for target in self.targets
            ]
        return *inputs, *labels

    def _text(self, place, item, seed):
        # A tab separates two texts only if the model reads two.
        texts = item.sample.text.split(SECOND_TEXT, self._text_count - 1)
        if len(texts) != self._text_count:
            raise BadRecord(
                "it must have two texts with a tab between. "
                f"Received: text={item.sample.text!r:.200}"
            )
        with reading_record():
            return checked_texts([texts[place]])[0][0].encode()

    def _pictures(self, item, seed):
        (count,) = self.inputs.pictures or (1,)
        if count != len(item.images):
            raise BadRecord(
                f"it must have {count} picture(s). Received: {len(item.images)}"
            )
        # Answers may mention left and right too. For a label that is not in the
        # list the slice is empty, and the target raises an error.
        names = [
            name
            for label in item.sample.labels
            for name in self.labels[label : label + 1]
        ]
        texts = [item.sample.text, *names]
        pictures = [
            self._picture(data, f"images[{i}]", [*seed, i], texts)
            for i, data in enumerate(item.images)
        ]
        return np.stack(pictures) if self.inputs.pictures else pictures[0]

    def _picture(self, data, name, seed, texts):
        with reading_record():
            picture = decode_image(data, name)
        try:
            return self.transform.of_picture(picture, seed, texts)
        except UnfitPicture as error:
            raise BadRecord(str(error)) from error


def check_fit(row_maker, num_hosts, preprocessor):
    """Raise if transform or preprocessor do not match the records.

    Args:
        row_maker: `RowMaker`.
        num_hosts: int.
        preprocessor: a task's preprocessor, or None.

    Raises:
        ValueError: the preprocessor expects another size or scale of
            pictures or other classes, or would pad texts to different lengths
            on different hosts.
    """
    images = "images" in row_maker.inputs.names
    if images != (row_maker.transform is not None):
        raise ValueError(
            "`transform` must be given where records have pictures, and only "
            f"there. Received: transform={row_maker.transform!r}, records of "
            f"the task {row_maker.readers[0].task!r}"
        )
    if preprocessor is None:
        return
    if num_hosts > 1 and preprocessor.buckets is not None:
        raise ValueError(
            "`buckets` would pad the hosts' parts of a batch to different "
            "lengths, and they would wait for each other. Leave them out. "
            f"Received: {num_hosts=}, buckets={preprocessor.buckets}"
        )
    if images:
        check_transform(row_maker.transform, preprocessor.image_converter)
    if any(target.names_classes for target in row_maker.targets):
        _check_classes(row_maker.labels, preprocessor)


def _check_classes(labels, preprocessor):
    # A label's name and its position must be the same class. The preprocessor
    # raises an error for unknown names.
    named = preprocessor.targets(np.array(labels))
    placed = preprocessor.targets(np.arange(len(labels)))
    if not np.array_equal(named, placed) or np.shape(named)[1:] not in (
        (),
        (len(labels),),
    ):
        raise ValueError(
            "The records' labels must be the preprocessor's classes, in their "
            "order: make the task with `stream.labels`. Received: "
            f"{len(labels)} labels, the first {labels[:5]}"
        )


def batches_at_once(specs, rows):
    """Return how many batches to make at a time: one per core, if they fit.

    Args:
        specs: list of `(dtype, shape)`, one per column.
        rows: int, number of rows of a batch.
    """
    sizes = [
        np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in specs
    ]
    return max(1, min(os.cpu_count(), _MOST // (rows * sum(sizes)) - _WAITING))


def stack_columns(rows, specs):
    """Stack rows to one array `(rows, *shape)` per column.

    Args:
        rows: list of tuples, at least one.
        specs: list of `(dtype, shape)`, one per column.
    """
    columns = []
    for values, (dtype, shape) in zip(
        zip(*rows, strict=True), specs, strict=True
    ):
        column = np.empty((len(rows), *shape), dtype)
        for i, value in enumerate(values):
            column[i] = value
        columns.append(column)
    return columns


@dataclasses.dataclass(frozen=True)
class Target:
    """A form of labels.

    Args:
        make: callable of the list of classes, an `Item` and the number of its
            source as a string, which returns the label.
        dtype: str, dtype of a batch of labels; `"object"` for strings.
        shape: callable from the list of classes to the shape of one label.
        names_classes: bool. If True, labels are positions in a list of
            classes.
    """

    make: Callable
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
    # Honest validation has questions without an answer in the list: all 0.
    scores = np.zeros(len(labels), "float32")
    scores[_checked_ids(labels, item)] = item.sample.scores or 1.0
    return scores


def _only(name, values):
    if len(values) != 1:
        raise ValueError(f"it must have one of {name}. Received: {values}")
    return values[0]


def _class_id(labels, item, origin):
    return _only("labels", _checked_ids(labels, item))


def _image_id(labels, item, origin):
    # Keys are unique in a split, but a stream may have several.
    return f"{origin}/{item.key}".encode()


def _number(labels, item, origin):
    return _only("scores", item.sample.scores)


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


def find_inputs(reader):
    """Return the `Inputs` of a model for the records of a reader.

    Text classifiers read two texts if the first readable record has two. With
    a single label the task is a regression.
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
        "No sample can be read. `keras-bridgetower data build` writes damaged "
        f"shards again. Received: reader of {reader.folder}:{reader.split}"
    )


class BadRecord(ValueError):
    """Raised for a record that cannot become a row of a batch."""


@contextlib.contextmanager
def reading_record():
    """Turn each `ValueError` in the context into a `BadRecord`."""
    try:
        yield
    except ValueError as error:
        raise BadRecord(str(error)) from error


@dataclasses.dataclass(frozen=True)
class BadSample:
    """A sample that was left out.

    Args:
        id: str, its id, or its number if the id cannot be read.
        source: str, its folder and split.
        reason: str.
    """

    id: str
    source: str
    reason: str


class DamageReport:
    """The samples that a stream left out. May be read during training.

    Args:
        samples: int, the number of samples in the stream.
        max_bad_share: float from 0 to 1, the share of them that may be bad.

    Attributes:
        bad: tuple of `BadSample`, each sample once even if it was read several
            times.

    Raises:
        ValueError: more samples were bad than allowed.

    Example:

    ```python
    report = DamageReport(samples=2000, max_bad_share=0.001)
    report.add(17, BadSample("q17", "coco/train", "an image of 0 bytes"))
    print(report)
    ```
    """

    def __init__(self, samples, max_bad_share):
        if not 0 <= max_bad_share <= 1:
            raise ValueError(
                "`max_bad_share` must be from 0 (none) to 1 (any number). "
                f"Received: max_bad_share={max_bad_share!r}"
            )
        self.samples = samples
        self.max_bad_share = max_bad_share
        self._bad = {}
        self._lock = threading.Lock()

    @property
    def bad(self):
        with self._lock:
            return tuple(bad for _, bad in sorted(self._bad.items()))

    @property
    def numbers(self):
        """Return the bad samples' numbers in the stream, as list of int."""
        with self._lock:
            return sorted(self._bad)

    def add(self, number, bad):
        """Count and log a bad sample; raise an error if there are too many.

        Args:
            number: int, the number of the sample in the stream.
            bad: `BadSample`.
        """
        with self._lock:
            if number in self._bad:
                return
            self._bad[number] = bad
            count = len(self._bad)
        LOGGER.warning(
            "Sample %s of %s is left out: %s", bad.id, bad.source, bad.reason
        )
        if count > self.max_bad_share * self.samples:
            raise ValueError(
                f"{count} of {self.samples} samples are bad, more than "
                f"`max_bad_share` allows, {self.max_bad_share}. The last one "
                f"is {bad.id!r} of {bad.source}: {bad.reason}"
            )

    def __str__(self):
        bad = self.bad
        head = f"{len(bad)} of {self.samples} samples were left out"
        return "\n".join(
            [head, *(f"  {b.id} ({b.source}): {b.reason}" for b in bad)]
        )
