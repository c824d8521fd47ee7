"""Checks of records before they are written: keys, labels, texts, pictures."""

import io

from PIL import UnidentifiedImageError

from keras_bridgetower.data.records import format as form
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import check_head


def check_records(split, records, task, labels):
    """Refuse records that cannot form a split: doubled ids, wrong labels."""
    if task not in form.TASKS:
        raise ValueError(
            f"`task` must be one of {list(form.TASKS)}. Received: task={task!r}"
        )
    if not records:
        raise ValueError(f"The split is empty. Received: split={split!r}")
    keys, ids = set(), set()
    for record in records:
        _check_unique("key", record.key, keys, split)
        if not record.samples:
            raise ValueError(
                "Every record needs a sample. Received: none for key="
                f"{record.key!r} in split={split!r}"
            )
        for sample in record.samples:
            _check_unique("id", sample.id, ids, split)
            _check_sample(sample, labels)


def check_images(images):
    """Refuse pictures that a stream could not open.

    Only headers are read. Reading pixels would take a hundred times as long.
    """
    for image in images:
        if not image:
            raise ValueError("a picture has 0 bytes")
        try:
            check_head(io.BytesIO(image), "picture")
        # Pillow's message shows a memory address; ours shows the bytes.
        except UnidentifiedImageError as error:
            raise ValueError(
                f"a picture must be one of {', '.join(FORMATS)}. Received: "
                f"{len(image)} bytes that begin with {image[:16]!r}"
            ) from error
        # On damaged files Pillow raises errors of many types.
        except Exception as error:
            raise ValueError(
                f"a picture cannot be opened: {type(error).__name__}: {error}"
            ) from error


def check_left_out(split, shards, total, max_bad_share):
    """Refuse a split that lacks too many records whose pictures are bad."""
    left_out = [row for shard in shards for row in shard["left_out"]]
    if len(left_out) > max_bad_share * total:
        key, reason = left_out[0]
        raise ValueError(
            f"Pictures of {len(left_out)} of {total} records of split "
            f"{split!r} could not be read, more than max_bad_share allows. "
            f"Received: max_bad_share={max_bad_share}; the first is "
            f"key={key!r}: {reason}"
        )


def _check_unique(name, value, seen, split):
    if value in seen:
        raise ValueError(
            f"Every {name} must occur once in a split. Received: {name}="
            f"{value!r} twice in split={split!r}"
        )
    seen.add(value)


def _check_sample(sample, labels):
    bad = [label for label in sample.labels if not 0 <= label < len(labels)]
    if bad or len(sample.scores) not in (0, len(sample.labels)):
        raise ValueError(
            f"Labels must be places in the list of {len(labels)} labels, and "
            "scores as many as labels or none. Received: labels="
            f"{sample.labels}, scores={sample.scores} for id={sample.id!r}"
        )
    try:
        sample.text.encode()
    except (AttributeError, UnicodeEncodeError) as error:
        raise ValueError(
            "A text must be a string without lone surrogates. Received: text="
            f"{sample.text!r:.200} for id={sample.id!r}"
        ) from error
