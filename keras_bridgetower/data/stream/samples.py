"""Makes one row of a batch from one sample: reads, decodes and transforms."""

import functools
import os

import numpy as np

from keras_bridgetower.data.records.format import SECOND_TEXT
from keras_bridgetower.data.stream.bad_samples import BadRecord
from keras_bridgetower.data.stream.bad_samples import BadSample
from keras_bridgetower.data.stream.bad_samples import reading_record
from keras_bridgetower.preprocessing.geometry import UnfitPicture
from keras_bridgetower.preprocessing.images import decode_image
from keras_bridgetower.preprocessing.texts import checked_texts

# Most bytes of batches in memory, and how many finished batches wait there.
_MOST, _WAITING = 4 * 2**30, 2


class RowMaker:
    """Makes rows of batches; leaves out samples that cannot be read.

    Args:
        readers: list of `RecordReader`. Samples are numbered across all.
        inputs: `targets.Inputs`, what the model reads.
        targets: list with one `targets.Target`, or empty.
        transform: an `augment.Transform`; None if there are no pictures.
        seed: int, seed of the transform's random draws.
        report: a `DamageReport`, to which bad samples are added.

    Attributes:
        specs: list of `(dtype, shape)`, one for each column; the dtype of
            strings is `"object"`.
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
        """Make the rows of the samples that can be read.

        Args:
            samples, passes: int arrays, as `EpochOrder` returns.

        Yields:
            tuples with one value for each column.
        """
        for number, seen in zip(samples.tolist(), passes.tolist(), strict=True):
            source, inside = self._place_of(number)
            reader = self.readers[source]
            name = f"#{inside}"
            try:
                with reading_record():
                    item = reader.sample(inside)
                name = item.sample.id
                yield self._row(item, source, [self.seed, seen, number])
            # Other errors come from settings or from this library: not caught.
            except BadRecord as error:
                place = f"{reader.folder}:{reader.split}"
                self.report.add(number, BadSample(name, place, str(error)))

    def name(self, number):
        """The id of a sample; its number if it cannot be read."""
        source, inside = self._place_of(number)
        try:
            return self.readers[source].sample(inside).sample.id
        except ValueError:
            return f"#{inside}"

    def _place_of(self, number):
        source = int(np.searchsorted(self._first, number, "right")) - 1
        return source, int(number - self._first[source])

    def _row(self, item, source, seed):
        made = [self._makers[name](item, seed) for name in self.inputs.names]
        with reading_record():
            labels = [
                target.of(self.labels, item, str(source))
                for target in self.targets
            ]
        return *made, *labels

    def _text(self, place, item, seed):
        # A tab divides the text only if the model reads two texts.
        texts = item.sample.text.split(SECOND_TEXT, self._text_count - 1)
        if len(texts) != self._text_count:
            raise BadRecord(
                "it must have two texts with a tab between. "
                f"Received: text={item.sample.text!r:.200}"
            )
        with reading_record():
            return checked_texts([texts[place]])[0][0].encode()

    def _pictures(self, item, seed):
        wanted = self.inputs.pictures or (1,)
        if wanted != (len(item.images),):
            raise BadRecord(
                f"it must have {wanted[0]} picture(s). Received: "
                f"{len(item.images)}"
            )
        # Answers may mention left and right too. The slice is empty for a label
        # that is not in the list; the target raises the error for it.
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


def batches_at_once(specs, rows):
    """The number of batches to make at a time: one for each core, if they fit.

    Args:
        specs: list of `(dtype, shape)`, one for each column.
        rows: int, number of rows of a batch.

    Returns:
        int, at least 1.
    """
    sizes = [
        np.dtype(dtype).itemsize * int(np.prod(shape)) for dtype, shape in specs
    ]
    return max(1, min(os.cpu_count(), _MOST // (rows * sum(sizes)) - _WAITING))


def columns_of(rows, specs):
    """Convert rows to one array for each column.

    Args:
        rows: list of tuples, at least one.
        specs: list of `(dtype, shape)`, one for each column.

    Returns:
        list of arrays `(rows, *shape)`.
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
