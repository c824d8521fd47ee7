"""`Stream`: makes batches from records, and can start at any batch."""

import hashlib
import itertools
import json
import numbers

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import is_integer
from keras_bridgetower.data.records.format import written_without_addresses
from keras_bridgetower.data.stream import epoch_order
from keras_bridgetower.data.stream import samples
from keras_bridgetower.preprocessing.tf_datasets import labelled
from keras_bridgetower.preprocessing.tf_datasets import untuned
from keras_bridgetower.preprocessing.tf_graph import until_exit


class Stream:
    """Endless batches of records, each determined by `seed` and its number.

    Pass `dataset()` to a task's `fit`, which preprocesses raw batches itself.
    Pictures are decoded, transformed and left as 8-bit values; texts are
    strings. The order, the augmentation and (by `x["step"]`) the random draws
    of a preprocessor are the same on every backend and after every restart.

    Args:
        readers: a `RecordReader`, or a list of them, with one task and one
            list of labels. Each reader is a source.
        batch_size: int, number of rows of a batch on all hosts together.
        transform: an `augment.Transform`; None if records have no pictures.
        preprocessor: a task's preprocessor, for features in loops of your
            own. None for raw batches, which `fit` needs.
        target: str, the form of the labels: `"soft_scores"` `(batch, labels)`,
            `"class_id"`, `"image_id"`, `"number"` (of a regression), `"none"`
            (for masked language modelling), or `"auto"`, the usual form for
            the records' task.
        order: `Shuffled(window, lanes)`, or `Sequential()` for evaluation.
        weights: list of numbers, the passes over each source in an epoch; by
            default 1. See `EpochOrder`.
        seed: int from 0.
        remainder: str, treatment of batches that lack rows: the last one of an
            epoch, and those with bad samples. `"keep"`: they are smaller.
            `"drop"`: the last one is dropped, others are filled with the
            following rows of the epoch. `"pad"`: they are padded with copies
            of weight -0.0, which tasks do not count as rows, and all batches
            have sample weights.
        num_hosts, host: ints, the number of hosts and the index of this one.
            Each host gets its own part of every batch.
        max_bad_share: float, the share of samples that may be unreadable. They
            are missing from their batches and listed in `report`.
        workers: int, number of batches prepared at a time on this host; two
            more are prefetched. By default one per core, or fewer, so that
            all take at most 4 GiB.

    Attributes:
        steps_per_epoch: int, number of batches in an epoch.
        identity: dict of plain values that determine the batches. A continued
            run must have a stream of the same identity.
        labels: list of str, the classes, in the order that a task must have.
        report: `DamageReport`, may be read at any time.

    Raises:
        ValueError: arguments do not match, or more samples are bad than
            allowed.

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
        readers = _check_readers(readers)
        check_choice("remainder", remainder, ("keep", "drop", "pad"))
        _check_hosts(batch_size, num_hosts, host)
        self.batch_size, self.num_hosts = int(batch_size), int(num_hosts)
        self.host = host
        self.preprocessor, self.transform = preprocessor, transform
        self.labels = list(readers[0].labels)
        weights = _checked_weights(weights, readers)
        order = epoch_order.Shuffled() if order is None else order
        total = sum(reader.num_samples for reader in readers)
        # Each host counts only the bad samples of its own part.
        own = -(-total // self.num_hosts)
        self.report = samples.DamageReport(own, max_bad_share)
        inputs = samples.find_inputs(readers[0])
        target = inputs.target if target == "auto" else target
        check_choice("target", target, ("auto", "none", *samples.TARGETS))
        targets = [] if target == "none" else [samples.TARGETS[target]]
        named = any(target.names_classes for target in targets)
        self._class_names = self.labels if named else None
        self._is_far = any(reader.is_far for reader in readers)
        for reader in readers:
            # Three windows for each lane of this host.
            lanes = -(-order.lanes // self.num_hosts)
            reader.keep_offsets(3 * order.window * lanes)
        self._row_maker = samples.RowMaker(
            readers, inputs, targets, transform, seed, self.report
        )
        if batch_size % order.lanes:
            raise ValueError(
                "`order.lanes` must divide `batch_size`. Received: "
                f"{order.lanes} and {batch_size}"
            )
        sizes = [[s["samples"] for s in reader.shards] for reader in readers]
        self._order = epoch_order.EpochOrder(sizes, weights, order, seed)
        self._remainder = remainder
        self.steps_per_epoch, left = divmod(self._order.rows, self.batch_size)
        if left and remainder != "drop":
            self.steps_per_epoch += 1
        # All hosts must make the same number of steps, and weights need labels.
        too_few = remainder == "keep" and 0 < left < num_hosts
        unlabelled = remainder == "pad" and not targets
        if too_few or unlabelled or not self.steps_per_epoch:
            raise ValueError(
                "`remainder` must leave every host at least one row of each "
                "batch, and 'pad' requires labels. "
                f"Received: {remainder=}, {batch_size=}"
            )
        samples.check_fit(self._row_maker, self.num_hosts, preprocessor)
        self.workers = workers or samples.batches_at_once(
            self._specs, self._host_batch_size
        )
        self.identity = {
            "batch_size": self.batch_size,
            "num_hosts": self.num_hosts,
            "seed": int(seed),
            "remainder": remainder,
            "order": written_without_addresses(order),
            "weights": [float(weight) for weight in weights],
            "transform": written_without_addresses(transform),
            "target": target,
            **{f"source {i}": _source(r) for i, r in enumerate(readers)},
        }

    def of_host(self, num_hosts, host):
        """Return the same stream for one host, with its rows of each batch."""
        hosts = {"num_hosts": num_hosts, "host": host}
        return type(self)(**self._arguments | hosts)

    def __repr__(self):
        steps = f"{self.steps_per_epoch:,} steps of {self.batch_size}"
        return f"<Stream of {self._order.rows:,.0f} samples, in {steps}>"

    def batch(self, number):
        """Return a batch by its number, as NumPy arrays.

        Args:
            number: int from 0. Epoch `e` starts at `e * steps_per_epoch`.

        Returns:
            `x`, `(x, y)` or `(x, y, sample_weight)`, where `x` is a raw batch
            or features.
        """
        return self._preprocessed(*self._packed(number, *self._fetch(number)))

    def ids(self, number):
        """Return the ids of the samples of a batch.

        The id of an unreadable sample is its number. Rows that fill up the
        batch are not listed.

        Args:
            number: int from 0, as `batch`.

        Returns:
            list of str.
        """
        epoch, low, high, _ = self._position(number)
        numbers, _ = self._order(epoch, self._positions(range(low, high)))
        return [self._row_maker.name(int(number)) for number in numbers]

    def dataset(self, start=(0, 0), epochs=None):
        """Return the batches as a `tf.data.Dataset`.

        Args:
            start: `(epoch, step)`, the first batch. Nothing before it is read.
            epochs: int, the end epoch, exclusive. If None, the dataset
                never ends, and `fit` needs
                `steps_per_epoch=stream.steps_per_epoch`.

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
        first = epoch * self.steps_per_epoch + step
        numbers = tf.data.Dataset.counter(first)
        if epochs is not None:
            end = epochs * self.steps_per_epoch
            numbers = numbers.take(max(0, end - first))
        how = {"num_parallel_calls": self.workers, "deterministic": True}
        dataset = numbers.map(self._in_graph, **how)
        if self.preprocessor is not None:
            dataset = dataset.map(self._preprocessed, **how)
        options = tf.data.Options()
        policies = tf.data.experimental.AutoShardPolicy
        # The stream already divides the data among hosts.
        options.experimental_distribute.auto_shard_policy = (
            policies.AUTO if self.num_hosts == 1 else policies.OFF
        )
        dataset = untuned(dataset.with_options(options).prefetch(2))
        return labelled(dataset, self._class_names)

    def _in_graph(self, number):
        import tensorflow as tf

        dtypes = [tf.string if d == "object" else d for d, _ in self._specs]
        nothing = [
            np.zeros((0,) * (1 + len(shape)), dtype)
            for dtype, shape in self._specs
        ]
        fetch = until_exit(self._fetch, nothing)
        columns = tf.numpy_function(fetch, [number], dtypes)
        rows = None if self._remainder == "keep" else self._host_batch_size
        for column, (_, shape) in zip(columns, self._specs, strict=True):
            column.set_shape((rows, *shape))
        return self._packed(number, *columns)

    def _packed(self, number, *columns):
        """Pack columns as `(x,)`, `(x, y)` or `(x, y, sample_weight)`."""
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
        """Return the number of rows of a complete batch on this host."""
        return self.batch_size // self.num_hosts

    @property
    def _specs(self):
        weights = [("float32", ())] if self._remainder == "pad" else []
        return self._row_maker.specs + weights

    def _fetch(self, number):
        """Read the columns of a batch."""
        epoch, low, high, end = self._position(number)
        if low < high and self._is_far:
            here = self._positions(range(low, high))
            self._row_maker.read_ahead(self._order.shards_ahead(epoch, here))
        rows = list(self._readable_rows(epoch, range(low, high)))
        # Rows to fill the batch, read only if needed, different on each host.
        more = range(end + self.host, end + self._order.rows, self.num_hosts)
        behind = (
            row
            for number in more
            for row in self._readable_rows(epoch, [number % self._order.rows])
        )
        rows = self._complete(rows, behind)
        if not rows:
            raise ValueError(
                f"Batch {number} has no row that can be read. Use a larger "
                "`batch_size`, or remainder='drop' or 'pad'"
            )
        columns = zip(zip(*rows, strict=True), self._specs, strict=True)
        return [np.array(values, dtype) for values, (dtype, _) in columns]

    def _complete(self, rows, behind):
        """Complete the rows of a batch, if they are not to be kept.

        Args:
            rows: list of tuples, the rows that could be read.
            behind: iterator over the rows that follow in the epoch.
        """
        full = self._host_batch_size
        missing = full - len(rows)
        if self._remainder == "drop":
            rows = [*rows, *itertools.islice(behind, missing)]
            # Repeat rows if the epoch has too few readable ones.
            return list(itertools.islice(itertools.cycle(rows), full))
        if self._remainder == "pad":
            spare = rows[:1] or [*itertools.islice(behind, 1)]
            # Tasks recognize padding by the minus sign (see
            # `losses.is_padding`).
            padding = [(*row, -0.0) for row in spare] * missing
            return [*((*row, 1.0) for row in rows), *padding]
        return rows

    def _position(self, number):
        """Return the epoch, the host's range of rows, and the batch's end."""
        epoch, step = divmod(int(number), self.steps_per_epoch)
        start = step * self.batch_size
        count = min(self.batch_size, self._order.rows - start)
        low, high = (
            start + count * part // self.num_hosts
            for part in (self.host, self.host + 1)
        )
        return epoch, low, high, start + count

    def _readable_rows(self, epoch, rows):
        return self._row_maker.readable_rows(
            *self._order(epoch, self._positions(rows))
        )

    def _positions(self, rows):
        """Return the positions in the order of an epoch of rows of batches."""
        lanes = self._order.mixing.lanes
        given = np.array(rows, int), self._order.rows
        return epoch_order.positions_in_lanes(*given, self.batch_size, lanes)


def _check_readers(readers):
    """Return the readers as a list. They must share task and labels."""
    readers = list(readers) if isinstance(readers, (list, tuple)) else [readers]
    kinds = {(reader.task, tuple(reader.labels)) for reader in readers}
    if len(kinds) != 1:
        raise ValueError(
            "`readers` must contain at least one reader, and all must share "
            f"one task and one list of labels. Received: {readers}"
        )
    return readers


def _checked_weights(weights, readers):
    """Return a weight for each reader, which leaves a row in an epoch."""
    sizes = [reader.num_samples for reader in readers]
    weights = [1] * len(readers) if weights is None else list(weights)
    if len(weights) != len(sizes) or not all(
        isinstance(weight, numbers.Real) and 0.5 < weight * size < np.inf
        for weight, size in zip(weights, sizes, strict=True)
    ):
        raise ValueError(
            "`weights` must be one number for each source, and leave a row of "
            f"it in an epoch. Received: {weights=} for {sizes} samples"
        )
    return weights


def _check_hosts(batch_size, num_hosts, host):
    """Raise if the hosts cannot divide the batch size evenly."""
    check_count("num_hosts", num_hosts)
    check_choice("host", host, range(num_hosts))
    if not is_integer(batch_size) or batch_size < 1 or batch_size % num_hosts:
        raise ValueError(
            "`batch_size` must be a positive multiple of `num_hosts`: the rows "
            f"of all hosts. Received: {batch_size=}, {num_hosts=}"
        )


def _source(reader):
    """Describe the content of a source, wherever its folder is."""
    # `shards` has the checksums of the files.
    content = [reader.task, reader.labels, reader.shards]
    text = json.dumps(content, sort_keys=True).encode()
    return {
        "split": reader.split,
        "num_samples": reader.num_samples,
        "sha256": hashlib.sha256(text).hexdigest(),
    }
