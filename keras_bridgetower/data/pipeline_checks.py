"""Whether the values of a stream fit each other, said before any reading."""

import numpy as np

from keras_bridgetower.preprocessing.image_converter import MODES


def check_readers(readers):
    """The readers as a list, of one task and one list of labels."""
    readers = list(readers) if isinstance(readers, (list, tuple)) else [readers]
    kinds = {(reader.task, tuple(reader.labels)) for reader in readers}
    if len(kinds) != 1:
        raise ValueError(
            "`readers` must be at least one, of one task and one list of "
            "labels. Received: tasks "
            f"{sorted({reader.task for reader in readers})}, "
            f"{len(kinds)} combinations of task and labels"
        )
    return readers


def check_weights(weights, readers):
    """The weights as a list, one for each reader."""
    weights = [1] * len(readers) if weights is None else list(weights)
    if len(weights) != len(readers) or not all(
        w > 0 and np.isfinite(w) for w in weights
    ):
        raise ValueError(
            f"`weights` must be {len(readers)} finite numbers above 0, one "
            "for each reader; leave out a source that you do not want. "
            f"Received: weights={weights!r}"
        )
    return weights


def check_hosts(stream, batch_size, num_hosts, host, remainder):
    """Refuse batches that the hosts cannot share, or that are none."""
    if type(num_hosts) is not int or not (
        num_hosts >= 1 and host in range(num_hosts)
    ):
        raise ValueError(
            "`num_hosts` must be an integer from 1, and `host` one below it. "
            f"Received: num_hosts={num_hosts!r}, host={host!r}"
        )
    if type(batch_size) is not int or batch_size < 1 or batch_size % num_hosts:
        raise ValueError(
            "`batch_size` must be a positive multiple of `num_hosts`; it "
            "counts the rows of all hosts. Received: "
            f"batch_size={batch_size!r}, num_hosts={num_hosts}"
        )
    rows = stream._order.rows
    if stream.steps_per_epoch < 1:
        raise ValueError(
            f"An epoch has {rows} rows, not one batch. Use a smaller "
            "`batch_size`, or remainder='keep' or 'pad'. Received: "
            f"batch_size={batch_size}, remainder={remainder!r}"
        )
    if remainder == "keep" and 0 < rows % batch_size < num_hosts:
        raise ValueError(
            f"The last batch of an epoch has {rows % batch_size} rows, too "
            f"few for {num_hosts} hosts, and hosts must make as many steps "
            "as each other. Use remainder='pad' or 'drop'. Received: "
            f"remainder={remainder!r}"
        )


def check_fit(stream, preprocessor):
    """Refuse a transform or a preprocessor that does not fit the records.

    Args:
        stream: a `Stream`.
        preprocessor: a task's preprocessor, or None.

    Raises:
        ValueError: pictures of another size or scale than the preprocessor's,
            other classes, or a tokenizer that pads each host's batch to
            another length.
    """
    images = "images" in stream._inputs.names
    if images != (stream.transform is not None):
        raise ValueError(
            "`transform` must be given where records have pictures, and only "
            "there. Take one from `augment.transform`. Received: "
            f"transform={stream.transform!r}, records of the task "
            f"{stream.readers[0].task!r}"
        )
    if stream._filled and not stream._targets:
        raise ValueError(
            "remainder='pad' weighs labels, which target='none' does not "
            "make. Use remainder='drop'. Received: remainder='pad'"
        )
    if preprocessor is None:
        return
    if stream.num_hosts > 1 and preprocessor.buckets is not None:
        raise ValueError(
            "`buckets` would pad the hosts' parts of a batch to different "
            "lengths, and they would wait for each other. Leave them out. "
            f"Received: num_hosts={stream.num_hosts}, "
            f"buckets={preprocessor.buckets}"
        )
    if images:
        _check_pictures(stream.transform, preprocessor.image_converter)
    if any(target.names_classes for target in stream._targets):
        _check_classes(stream.labels, preprocessor)


def _check_pictures(transform, converter):
    side = transform.image_size
    placed = MODES[converter.mode](
        (side, side), converter.image_size, converter.size_divisor
    )
    if placed != ((side, side), (0, 0)):
        raise ValueError(
            "`transform` must make pictures that the preprocessor's image "
            f"converter leaves as they are: {converter.image_size} px, mode "
            f"{converter.mode!r}. Received: transform.image_size={side}"
        )
    ours = transform.mean, transform.std
    theirs = converter.mean, converter.std
    if ours != theirs:
        raise ValueError(
            "`transform` and the preprocessor's image converter must have one "
            "mean and one standard deviation, or evaluation would see other "
            "values than training. Pass `mean` and `std` to "
            "`BridgeTowerImageConverter`. Received: transform with "
            f"{ours}, converter with {theirs}"
        )


def _check_classes(labels, preprocessor):
    # Names and places must mean the same to it; unknown names it refuses.
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
