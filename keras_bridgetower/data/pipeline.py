"""Records to batches, fast, in an order that can be taken up anywhere."""

import dataclasses
import math
import os
from collections.abc import Callable

import numpy as np

from keras_bridgetower.data.damage import BadSample
from keras_bridgetower.data.damage import DamageReport
from keras_bridgetower.data.order import EpochOrder
from keras_bridgetower.data.order import Shuffled
from keras_bridgetower.data.pipeline_checks import check_fit
from keras_bridgetower.data.pipeline_checks import check_hosts
from keras_bridgetower.data.pipeline_checks import check_readers
from keras_bridgetower.data.pipeline_checks import check_weights
from keras_bridgetower.data.targets import INPUTS
from keras_bridgetower.data.targets import TARGETS
from keras_bridgetower.preprocessing.images import decode_image
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.validation import check_choice


@dataclasses.dataclass(frozen=True)
class Remainder:
    """What becomes of a batch that lacks rows.

    Args:
        steps: callable that rounds the number of batches in an epoch.
        filled: bool, whether missing rows are filled.
    """

    steps: Callable
    filled: bool = False


REMAINDERS = {
    "keep": Remainder(math.ceil),
    "drop": Remainder(math.floor),
    "pad": Remainder(math.ceil, filled=True),
}


class Stream:
    """Endless batches of records, each a function of `seed` and its number.

    `dataset()` goes into a task's `fit`, which preprocesses raw batches itself.
    Pictures are decoded, transformed and left as 8-bit values; texts are
    strings. Order, augmentation and, through `x["step"]`, what a preprocessor
    draws are the same on every backend and after every restart.

    Args:
        readers: a `RecordReader`, or a list of them, each a source, of one
            task and one list of labels.
        batch_size: int, rows of a batch on all hosts together.
        transform: an `augment.Transform`; None where records have no pictures.
        preprocessor: a task's preprocessor, to yield its features, for loops
            of your own. None, what `fit` needs: yield raw batches.
        target: str, what the labels are: `"soft_scores"` `(batch, labels)`,
            `"class_id"`, `"image_id"`, `"number"` (a grade), `"none"` (masked
            language), or `"auto"`: what the records' task usually has.
        order: `Shuffled(window)`, or `Sequential()` for evaluation.
        weights: list of numbers, how often each source is seen in an epoch; by
            default once. See `EpochOrder`.
        seed: int from 0.
        remainder: str. The last batch of an epoch may lack rows, and so does
            each with a bad sample. `"keep"`: such batches are smaller.
            `"drop"`: likewise, but an epoch's smaller last batch is left out.
            `"pad"`: they are filled with copies of weight 0, and batches
            come with sample weights.
        num_hosts, host: ints. Each host gets its own part of every batch.
        max_bad_share: float, how many of the samples may be unreadable. They
            are missing from their batches and stand in `report`.
        workers: int, batches that are made at a time; by default one for
            each core.

    Attributes:
        steps_per_epoch: int.
        labels: list of str, the classes; a task must have the same.
        report: `DamageReport`, which may be read while training goes on.

    Raises:
        ValueError: values that do not fit each other; while reading, more bad
            samples than `max_bad_share`.

    Example:

    ```python
    stream = Stream(
        open_records("vqa", "train"),
        batch_size=2,
        transform=transform("blip_randaug_wohf", image_size=64),
    )
    x, y = stream.batch(0)
    dataset = stream.dataset(start=(0, 1))
    ```
    """

    def __init__(
        self,
        readers,
        batch_size,
        transform=None,
        preprocessor=None,
        *,
        target="auto",
        order=None,
        weights=None,
        seed=0,
        remainder="keep",
        num_hosts=1,
        host=0,
        max_bad_share=0.001,
        workers=None,
    ):
        self.readers = check_readers(readers)
        self.labels = list(self.readers[0].labels)
        self._inputs = INPUTS[self.readers[0].task]
        check_choice("target", target, ("auto", "none", *TARGETS))
        check_choice("remainder", remainder, tuple(REMAINDERS))
        target = self._inputs.target if target == "auto" else target
        self._targets = [TARGETS[name] for name in {target} & set(TARGETS)]
        self._remainder = REMAINDERS[remainder]
        sizes = [[s["samples"] for s in r.shards] for r in self.readers]
        self._first = np.cumsum([0, *map(sum, sizes)])
        weights = check_weights(weights, self.readers)
        order = Shuffled() if order is None else order
        self._order = EpochOrder(sizes, weights, order, seed)
        self.steps_per_epoch = self._remainder.steps(
            self._order.rows / batch_size
        )
        check_hosts(self, batch_size, num_hosts, host, remainder)
        self.batch_size = batch_size
        self.seed = seed
        self.num_hosts, self.host = num_hosts, host
        self.workers = workers or os.cpu_count()
        # Each host meets its own bad samples, and about as many as another.
        self.report = DamageReport(
            -(-int(self._first[-1]) // num_hosts), max_bad_share
        )
        self.transform = transform
        self.preprocessor = preprocessor
        self._specs = self._columns()
        check_fit(self, preprocessor)

    def batch(self, number):
        """A batch by its number, as NumPy arrays.

        Args:
            number: int from 0; epoch `e` starts at `e * steps_per_epoch`.

        Returns:
            `x`, `(x, y)` or `(x, y, sample_weight)`: raw, or features.
        """
        return self._preprocessed(*self._packed(number, *self._fetch(number)))

    def dataset(self, start=(0, 0), epochs=None):
        """The batches as a `tf.data.Dataset`.

        Args:
            start: `(epoch, step)`, the first batch. Nothing before is read.
            epochs: int, the epoch before which it ends; None: it never ends,
                and `fit` needs `steps_per_epoch=stream.steps_per_epoch`.

        Returns:
            A dataset of batches.

        Raises:
            ValueError: a start outside the stream.
        """
        import tensorflow as tf

        epoch, step = start
        if epoch < 0 or not 0 <= step <= self.steps_per_epoch:
            raise ValueError(
                "`start` must be (epoch, step), the step at most "
                f"{self.steps_per_epoch}. Received: start={start!r}"
            )
        first = epoch * self.steps_per_epoch + step
        if epochs is None:
            numbers = tf.data.Dataset.counter(first)
        else:
            numbers = tf.data.Dataset.range(
                first, max(first, epochs * self.steps_per_epoch)
            )
        dataset = numbers.map(
            self._in_graph, num_parallel_calls=self.workers, deterministic=True
        )
        if self.preprocessor is not None:
            dataset = dataset.map(
                self._preprocessed,
                num_parallel_calls=self.workers,
                deterministic=True,
            )
        options = tf.data.Options()
        policies = tf.data.experimental.AutoShardPolicy
        # TensorFlow must not part again what the stream has parted.
        options.experimental_distribute.auto_shard_policy = (
            policies.AUTO if self.num_hosts == 1 else policies.OFF
        )
        return dataset.with_options(options).prefetch(2)

    def _in_graph(self, number):
        import tensorflow as tf

        dtypes = [tf.string if d == "object" else d for d, _ in self._specs]
        columns = tf.numpy_function(self._fetch, [number], dtypes)
        for column, (_, shape) in zip(columns, self._specs, strict=True):
            column.set_shape((self._rows, *shape))
        return self._packed(number, *columns)

    def _packed(self, number, *columns):
        """Columns as `(x, y, sample_weight)`, as far as there are such."""
        count = len(self._inputs.names)
        x = dict(zip(self._inputs.names, columns, strict=False))
        # Hosts draw apart from each other.
        x["step"] = number * self.num_hosts + self.host
        return (x, *columns[count:])

    def _preprocessed(self, *batch):
        if self.preprocessor is not None:
            return self.preprocessor(*batch)
        return batch[0] if len(batch) == 1 else batch

    @property
    def _rows(self):
        """Rows of this host's batches, or None where they vary."""
        return self.batch_size // self.num_hosts if self._filled else None

    @property
    def _filled(self):
        return self._remainder.filled

    def _columns(self):
        """Dtype, and shape without the batch axis, of each column."""
        side = self.transform and self.transform.image_size
        kinds = {
            "images": ("uint8", (*self._inputs.pictures, side, side, 3)),
            "text": ("object", ()),
        }
        return [
            *(kinds[name] for name in self._inputs.names),
            *((t.dtype, t.shape(self.labels)) for t in self._targets),
            *[("float32", ())] * self._filled,
        ]

    def _fetch(self, number):
        """The columns of a batch."""
        epoch, step = divmod(int(number), self.steps_per_epoch)
        start = step * self.batch_size
        count = min(self.batch_size, self._order.rows - start)
        low, high = (
            start + count * part // self.num_hosts
            for part in (self.host, self.host + 1)
        )
        rows = list(self._good_rows(epoch, np.arange(low, high)))
        if self._filled:
            rows = self._with_fillers(rows, epoch, low)
        if not rows:
            raise ValueError(
                f"Batch {number} has no row that can be read. Use a larger "
                "`batch_size`, or remainder='pad'. Received: "
                f"batch_size={self.batch_size}"
            )
        columns = zip(*rows, strict=True)
        specs = zip(columns, self._specs, strict=True)
        return [_column(values, dtype) for values, (dtype, _) in specs]

    def _with_fillers(self, rows, epoch, low):
        missing = self._rows - len(rows)
        weighted = [(*row, 1.0) for row in rows]
        if missing:
            # Those after the batch come in only where it has no row at all.
            others = (
                row
                for place in range(low, low + self._order.rows)
                for row in self._good_rows(epoch, [place % self._order.rows])
            )
            spare = rows[:1] or [row for row, _ in zip(others, "1")]  # noqa: B905
            weighted += [(*row, 0.0) for row in spare] * missing
        return weighted

    def _good_rows(self, epoch, places):
        samples, passes = self._order(epoch, places)
        for number, seen in zip(samples.tolist(), passes.tolist(), strict=True):
            source = int(np.searchsorted(self._first, number, "right")) - 1
            reader, inside = self.readers[source], number - self._first[source]
            name = f"sample {inside}"
            try:
                item = reader.sample(int(inside))
                name = item.sample.id
                yield self._row(item, source, [self.seed, seen, number])
            except ValueError as error:
                bad = BadSample(
                    name, f"{reader.folder}:{reader.split}", str(error)
                )
                self.report.add(number, bad)

    def _row(self, item, source, seed):
        """The columns of one sample."""
        made = [_INPUT[n](self, item, seed) for n in self._inputs.names]
        labels = [t.of(self.labels, item, str(source)) for t in self._targets]
        return *made, *labels

    def _text(self, item, seed):
        return checked_texts([item.sample.text])[0][0].encode()

    def _pictures(self, item, seed):
        texts = [item.sample.text]
        pictures = [
            self.transform.of_picture(
                decode_image(data, f"images[{i}]"), [*seed, i], texts
            )
            for i, data in enumerate(item.images)
        ]
        if (len(pictures),) != (self._inputs.pictures or (1,)):
            raise ValueError(f"It has {len(pictures)} pictures.")
        return np.stack(pictures) if self._inputs.pictures else pictures[0]


_INPUT = {"images": Stream._pictures, "text": Stream._text}


def _column(values, dtype):
    made = np.empty((len(values), *np.shape(values[0])), dtype)
    for i, value in enumerate(values):
        made[i] = value
    return made
