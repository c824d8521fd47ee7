"""Checks the arguments of `Stream` before data are read."""

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import is_integer
from keras_bridgetower.preprocessing.geometry import check_transform


def check_readers(readers):
    """Return the readers as a list. They must share task and labels."""
    readers = list(readers) if isinstance(readers, (list, tuple)) else [readers]
    kinds = {(reader.task, tuple(reader.labels)) for reader in readers}
    if len(kinds) != 1:
        raise ValueError(
            "`readers` must be at least one, of one task and one list of "
            f"labels. Received: {readers}"
        )
    return readers


def check_weights(weights, readers):
    """Return the weights as a list, one per reader."""
    weights = [1] * len(readers) if weights is None else list(weights)
    if len(weights) != len(readers) or not all(
        w > 0 and np.isfinite(w) for w in weights
    ):
        raise ValueError(
            f"`weights` must be {len(readers)} finite numbers above 0, one "
            "for each reader; leave out a source that you do not want. "
            f"Received: weights={weights!r}"
        )
    for weight, reader in zip(weights, readers, strict=True):
        if round(weight * reader.num_samples) < 1:
            raise ValueError(
                "`weights` must leave a row of each source in an epoch, of "
                f"`round(weight * samples)`. Received: {weight} for "
                f"{reader.num_samples} samples of {reader.folder}"
            )
    return weights


def check_hosts(batch_size, num_hosts, host):
    """Raise if the hosts cannot divide the batch size evenly."""
    check_count("num_hosts", num_hosts)
    check_choice("host", host, range(num_hosts))
    if not is_integer(batch_size) or batch_size < 1 or batch_size % num_hosts:
        raise ValueError(
            "`batch_size` must be a positive multiple of `num_hosts`; it "
            "counts the rows of all hosts. Received: "
            f"batch_size={batch_size!r}, num_hosts={num_hosts}"
        )


def check_records_fit(row_maker, num_hosts, preprocessor):
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
