"""`Stream`: makes batches from records, and can start at any batch."""

import hashlib
import json

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.data.stream.bad_samples import DamageReport
from keras_bridgetower.data.stream.checks import check_epoch
from keras_bridgetower.data.stream.checks import check_hosts
from keras_bridgetower.data.stream.checks import check_readers
from keras_bridgetower.data.stream.checks import check_records_fit
from keras_bridgetower.data.stream.checks import check_weights
from keras_bridgetower.data.stream.epoch_order import EpochOrder
from keras_bridgetower.data.stream.epoch_order import Shuffled
from keras_bridgetower.data.stream.remainders import REMAINDERS
from keras_bridgetower.data.stream.samples import RowMaker
from keras_bridgetower.data.stream.samples import batches_at_once
from keras_bridgetower.data.stream.samples import columns_of
from keras_bridgetower.data.stream.targets import TARGETS
from keras_bridgetower.data.stream.targets import inputs_of
from keras_bridgetower.data.written import written_without_places
from keras_bridgetower.preprocessing.close_datasets import close_at_exit
from keras_bridgetower.preprocessing.tf_datasets import labelled
from keras_bridgetower.preprocessing.tf_datasets import untuned


class Stream:
    """Endless batches of records. Each is a function of `seed` and its number.

    Pass `dataset()` to a task's `fit`, which preprocesses raw batches itself.
    Pictures are decoded, transformed and left as 8-bit values; texts are
    strings. The order, the augmentation and (by `x["step"]`) the random draws
    of a preprocessor are the same on every backend and after every restart.

    Args:
        readers: a `RecordReader`, or a list of them, with one task and one
            list of labels. Each is a source.
        batch_size: int, number of rows of a batch on all hosts together.
        transform: an `augment.Transform`; None if records have no pictures.
        preprocessor: a task's preprocessor, to get its features in loops of
            your own. None, as `fit` needs it, for raw batches.
        target: str, the form of the labels: `"soft_scores"` `(batch, labels)`,
            `"class_id"`, `"image_id"`, `"number"` (of a regression), `"none"`
            (for masked language modelling), or `"auto"`, the usual form for
            the records' task.
        order: `Shuffled(window)`, or `Sequential()` for evaluation.
        weights: list of numbers, how often each source is seen in an epoch; by
            default once. See `EpochOrder`.
        seed: int from 0.
        remainder: str, what happens to the last batch of an epoch, which may
            lack rows, and to batches with bad samples. `"keep"`: they are
            smaller. `"drop"`: the last one is dropped, others are filled with
            the rows that follow in the epoch. `"pad"`: they are padded with
            copies of weight -0.0, which tasks do not count as rows, and all
            batches come with sample weights.
        num_hosts, host: ints, the number of hosts and the index of this one.
            Each host gets its own part of every batch.
        max_bad_share: float, the share of samples that may be unreadable. They
            are missing from their batches and listed in `report`.
        workers: int, number of batches that this host makes at a time; two
            more wait. By default one for each core, or fewer, so that all take
            at most 4 GiB.

    Attributes:
        steps_per_epoch: int, number of batches in an epoch.
        identity: dict of plain values that determine the batches. To continue
            a run, its stream must have the same identity.
        labels: list of str, the classes, in the order that a task must have.
        report: `DamageReport`, may be read at any time.

    Raises:
        ValueError: arguments do not fit each other, or more samples are bad
            than allowed.

    Example:

    ```python
    from keras_bridgetower import data

    sample = data.Sample("0", "it rained", (0,))
    picture = b"P6 1 1 255 " + bytes(3)
    record = data.Record("0", (picture,), (sample,), "own")
    data.write_shards("weather", "train", [record], task="vqa",
                         labels=["yes", "no"], definition="All rows.")
    stream = Stream(
        data.open_records("weather", "train"),
        batch_size=1,
        transform=data.transform("blip_randaug_wohf", image_size=64),
    )
    x, y = stream.batch(0)
    dataset = stream.dataset(start=(2, 0))
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
        self._arguments = {k: v for k, v in locals().items() if k != "self"}
        readers = check_readers(readers)
        check_choice("target", target, ("auto", "none", *TARGETS))
        check_choice("remainder", remainder, tuple(REMAINDERS))
        check_hosts(batch_size, num_hosts, host)
        batch_size, num_hosts = int(batch_size), int(num_hosts)
        self.batch_size = batch_size
        self.num_hosts, self.host = num_hosts, host
        self.preprocessor, self.transform = preprocessor, transform
        self.labels = list(readers[0].labels)
        samples = sum(reader.num_samples for reader in readers)
        # Each host counts only the bad samples of its own part.
        self.report = DamageReport(-(-samples // num_hosts), max_bad_share)
        inputs = inputs_of(readers[0])
        target = inputs.target if target == "auto" else target
        targets = [] if target == "none" else [TARGETS[target]]
        named = any(target.names_classes for target in targets)
        self._class_names = self.labels if named else None
        weights = check_weights(weights, readers)
        order = Shuffled() if order is None else order
        self._row_maker = RowMaker(
            readers, inputs, targets, transform, seed, self.report
        )
        self._order = EpochOrder(
            [[shard["samples"] for shard in r.shards] for r in readers],
            weights,
            order,
            seed,
        )
        self._remainder = REMAINDERS[remainder]
        self.steps_per_epoch = self._remainder.steps(
            self._order.rows / batch_size
        )
        check_epoch(
            self._order.rows, batch_size, num_hosts, bool(targets), remainder
        )
        check_records_fit(self._row_maker, num_hosts, preprocessor)
        self.workers = workers or batches_at_once(
            self._specs, self._host_batch_size
        )
        self.identity = {
            "batch_size": batch_size,
            "num_hosts": num_hosts,
            "seed": int(seed),
            "remainder": remainder,
            "order": written_without_places(order),
            "weights": [float(weight) for weight in weights],
            "transform": written_without_places(transform),
            "target": target,
            **sources(readers),
        }

    def of_host(self, num_hosts, host):
        """The same stream for one host, which reads its rows of each batch."""
        given = self._arguments | {"num_hosts": num_hosts, "host": host}
        return type(self)(**given)

    def __repr__(self):
        steps = f"{self.steps_per_epoch:,} steps of {self.batch_size}"
        return f"<Stream of {self._order.rows:,.0f} samples, in {steps}>"

    def batch(self, number):
        """A batch by its number, as NumPy arrays.

        Args:
            number: int from 0. Epoch `e` starts at `e * steps_per_epoch`.

        Returns:
            `x`, `(x, y)` or `(x, y, sample_weight)`, where `x` is a raw batch
            or features.
        """
        return self._preprocessed(*self._packed(number, *self._fetch(number)))

    def ids(self, number):
        """The ids of the samples of a batch.

        An unreadable sample has its number instead. Rows that were added to
        fill the batch are not listed.

        Args:
            number: int from 0, as `batch`.

        Returns:
            list of str.
        """
        epoch, low, high, _ = self._position_of(number)
        samples, _ = self._order(epoch, np.arange(low, high))
        return [self._row_maker.name(int(sample)) for sample in samples]

    def dataset(self, start=(0, 0), epochs=None):
        """The batches as a `tf.data.Dataset`.

        Args:
            start: `(epoch, step)`, the first batch. Nothing before it is read.
            epochs: int, the epoch before which the dataset ends. If None, it
                never ends, and `fit` needs
                `steps_per_epoch=stream.steps_per_epoch`.

        Returns:
            A dataset of batches.

        Raises:
            ValueError: `start` is outside the stream.
        """
        import tensorflow as tf

        epoch, step = start
        if epoch < 0 or not 0 <= step <= self.steps_per_epoch:
            raise ValueError(
                "`start` must be (epoch, step), the step at most "
                f"{self.steps_per_epoch}. Received: start={start!r}"
            )
        close_at_exit()
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
        # The stream has divided the data among hosts: TensorFlow must not.
        options.experimental_distribute.auto_shard_policy = (
            policies.AUTO if self.num_hosts == 1 else policies.OFF
        )
        return labelled(
            untuned(dataset.with_options(options).prefetch(2)),
            self._class_names,
        )

    def _in_graph(self, number):
        import tensorflow as tf

        dtypes = [tf.string if d == "object" else d for d, _ in self._specs]
        columns = tf.numpy_function(self._fetch, [number], dtypes)
        for column, (_, shape) in zip(columns, self._specs, strict=True):
            column.set_shape(
                (self._remainder.fixed_rows(self._host_batch_size), *shape)
            )
        return self._packed(number, *columns)

    def _packed(self, number, *columns):
        """Columns as `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
        names = self._row_maker.inputs.names
        x = dict(zip(names, columns, strict=False))
        # Each host has its own numbers, and so its own random draws.
        x["step"] = number * self.num_hosts + self.host
        return (x, *columns[len(names) :])

    def _preprocessed(self, *batch):
        if self.preprocessor is not None:
            return self.preprocessor(*batch)
        return batch[0] if len(batch) == 1 else batch

    @property
    def _host_batch_size(self):
        """Number of rows of a complete batch on this host."""
        return self.batch_size // self.num_hosts

    @property
    def _specs(self):
        return self._row_maker.specs + self._remainder.columns

    def _fetch(self, number):
        """Read the columns of a batch."""
        epoch, low, high, end = self._position_of(number)
        rows = list(self._readable_rows(epoch, range(low, high)))
        # Rows to fill the batch, read only if needed. Each host takes others.
        places = range(end + self.host, end + self._order.rows, self.num_hosts)
        behind = (
            row
            for place in places
            for row in self._readable_rows(epoch, [place % self._order.rows])
        )
        rows = self._remainder.complete(rows, self._host_batch_size, behind)
        if not rows:
            raise ValueError(
                f"Batch {number} has no row that can be read. Use a larger "
                "`batch_size`, or remainder='drop' or 'pad'. Received: "
                f"batch_size={self.batch_size}"
            )
        return columns_of(rows, self._specs)

    def _position_of(self, number):
        """The epoch of a batch, start and end of this host's rows, its end."""
        epoch, step = divmod(int(number), self.steps_per_epoch)
        start = step * self.batch_size
        count = min(self.batch_size, self._order.rows - start)
        low, high = (
            start + count * part // self.num_hosts
            for part in (self.host, self.host + 1)
        )
        return epoch, low, high, start + count

    def _readable_rows(self, epoch, places):
        return self._row_maker.readable_rows(
            *self._order(epoch, np.array(places, int))
        )


def sources(readers):
    """Describe the content of sources, independent of where their folders are.

    Args:
        readers: list of `RecordReader`.

    Returns:
        dict from `"source 0"`, `"source 1"` and so on to dicts of plain
        values.
    """
    return {f"source {i}": _source(r) for i, r in enumerate(readers)}


def _source(reader):
    # `shards` holds the checksums of the files.
    part = [reader.task, reader.labels, reader.shards]
    text = json.dumps(part, sort_keys=True).encode()
    return {
        "split": reader.split,
        "num_samples": reader.num_samples,
        "sha256": hashlib.sha256(text).hexdigest(),
    }
