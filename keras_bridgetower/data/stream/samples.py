"""Makes rows of batches from samples, and counts the samples it leaves out."""

import contextlib
import dataclasses
import logging
import threading
from collections.abc import Callable

import numpy as np

from keras_bridgetower.cores import usable_cores
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
        self.specs = [
            *(kinds[name] for name in inputs.names),
            *((t.dtype, t.shape(self.labels)) for t in targets),
        ]

    def read_ahead(self, shards):
        """Fetch shards of object stores in the background.

        Args:
            shards: int array `(shards,)`, numbered across all readers.
        """
        first = 0
        for reader in self.readers:
            count = len(reader.shards)
            own = (shards >= first) & (shards < first + count)
            reader.read_ahead((shards[own] - first).tolist())
            first += count

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
                origin = f"{reader.place}:{reader.split}"
                self.report.add(number, BadSample(name, origin, str(error)))

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
        with reading_record():
            values = self._texts(item.sample.text)
            pictures = [
                decode_image(data, f"images[{i}]")
                for i, data in enumerate(item.images)
            ]
            answers = [self.labels[i] for i in item.sample.labels]
            targets = [
                target.make(self.labels, item, str(source))
                for target in self.targets
            ]
        if "images" in self.inputs.names:
            # Answers may mention left and right too.
            texts = [item.sample.text, *answers]
            values["images"] = self._pictures(pictures, seed, texts)
        return *(values[name] for name in self.inputs.names), *targets

    def _texts(self, text):
        names = [name for name in self.inputs.names if name != "images"]
        if not names:
            return {}
        # A tab separates two texts only if the model reads two.
        parts, _ = checked_texts(text.split(SECOND_TEXT, len(names) - 1))
        parts = (part.encode() for part in parts)
        return dict(zip(names, parts, strict=True))

    def _pictures(self, pictures, seed, texts):
        (count,) = self.inputs.pictures or (1,)
        if count != len(pictures):
            raise BadRecord(
                f"it must have {count} picture(s). Received: {len(pictures)}"
            )
        try:
            made = [
                self.transform.of_picture(picture, [*seed, i], texts)
                for i, picture in enumerate(pictures)
            ]
        # Other errors of transforms are not those of records.
        except UnfitPicture as error:
            raise BadRecord(str(error)) from error
        return np.stack(made) if self.inputs.pictures else made[0]


def check_fit(row_maker, num_hosts, preprocessor):
    """Raise if transform or preprocessor do not match the records.

    Args:
        row_maker: `RowMaker`.
        num_hosts: int.
        preprocessor: a task's preprocessor, or None.

    Raises:
        ValueError: a transform is missing; the preprocessor expects another
            size or scale of pictures or other classes, or would pad texts to
            different lengths on different hosts.
    """
    has_pictures = "images" in row_maker.inputs.names
    if has_pictures and row_maker.transform is None:
        raise ValueError(
            "`transform` must be given, since the records have pictures. "
            "Received: None"
        )
    if preprocessor is None:
        return
    if num_hosts > 1 and preprocessor.buckets is not None:
        raise ValueError(
            "`buckets` would pad the hosts' parts of a batch to different "
            f"lengths, so that they wait forever. Received: {num_hosts=}"
        )
    if has_pictures:
        check_transform(row_maker.transform, preprocessor.image_converter)
    if not any(target.names_classes for target in row_maker.targets):
        return
    labels = row_maker.labels
    # A label's name and its position must be the same class. The preprocessor
    # raises an error for unknown names.
    named = preprocessor.targets(np.array(labels))
    placed = preprocessor.targets(np.arange(len(labels)))
    if not np.array_equal(named, placed) or np.shape(named)[1:] not in (
        (),
        (len(labels),),
    ):
        raise ValueError(
            "The preprocessor must have the records' labels in their order: "
            f"make the task with `stream.labels`. Received: {labels!s:.99}"
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
    return max(1, min(usable_cores(), _MOST // (rows * sum(sizes)) - _WAITING))


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


def _soft_scores(labels, item, origin):
    # Honest validation has questions without an answer in the list: all 0.
    scores = np.zeros(len(labels), "float32")
    _check_ids(labels, item)
    scores[list(item.sample.labels)] = item.sample.scores or 1.0
    return scores


def _class_id(labels, item, origin):
    [label] = _check_ids(labels, item)
    return label


def _check_ids(labels, item):
    ids = item.sample.labels
    # NumPy would count a negative one from the end.
    if not all(0 <= i < len(labels) for i in ids):
        raise ValueError(f"its labels {ids} must be below {len(labels)}")
    return ids


def _image_id(labels, item, origin):
    # Keys are unique in a split, but a stream may have several.
    return f"{origin}/{item.key}".encode()


def _number(labels, item, origin):
    [score] = item.sample.scores
    return score


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
        with contextlib.suppress(ValueError):
            return reader.sample(i).sample.text
    raise ValueError(f"No sample of {reader.place}:{reader.split} can be read")


class BadRecord(ValueError):
    """Raised for a record that cannot become a row of a batch."""


@contextlib.contextmanager
def reading_record():
    """Turn the errors of bad values in the context into a `BadRecord`."""
    try:
        yield
    except (ValueError, IndexError) as error:
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
                "`max_bad_share` must be from 0 to 1. "
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
                f"`max_bad_share` allows. The last: {bad.id}: {bad.reason}"
            )

    def __str__(self):
        bad = self.bad
        head = f"{len(bad)} of {self.samples} samples were left out"
        return "\n".join(
            [head, *(f"  {b.id} ({b.source}): {b.reason}" for b in bad)]
        )
