"""Prepares the rows on which `export` measures ranges for int8."""

import keras

import keras_bridgetower as kbt
from keras_bridgetower.apps.predict.batches import with_pictures
from keras_bridgetower.apps.predict.rows import PICTURES
from keras_bridgetower.apps.predict.rows import open_rows

# Ranges change little with more samples.
MOST = 256
# Multiples of it, modulo 1, fill any span evenly.
GOLDEN = 0.618
PAIR = ("image", "text")


def calibration_samples(task, source, texts=(), most=MOST):
    """Prepare rows as features of a task.

    Args:
        task: a task with a preprocessor.
        source: path of a folder of pictures, or of a table with the columns
            that `predict` reads.
        texts: list of str. Each row of the source is used with each.
        most: int. Of more rows, this many are used, evenly spread.

    Returns:
        dict of features, as the preprocessor returns them.

    Raises:
        ValueError: a source of the wrong kind, or a row that cannot be read.
    """
    columns = dict.fromkeys(c for verb in task.verbs for c in verb.inputs)
    optional = dict.fromkeys(c for verb in task.verbs for c in verb.optional)
    rows = open_rows(source, tuple(columns) or PAIR, tuple(optional), texts)
    chosen = set(_spread(rows.count, most))
    inputs = [_open(row) for row in rows if row.number in chosen]
    found = {name: [row[name] for row in inputs] for name in inputs[0]}
    raw = {k: v for k, v in found.items() if k not in PICTURES}
    if "image" in found:
        raw["images"] = found["image"]
    if "second_image" in found:
        pairs = zip(found["image"], found["second_image"], strict=True)
        raw["images"] = list(pairs)
    features, _, _ = keras.utils.unpack_x_y_sample_weight(
        task.preprocessor(raw)
    )
    if isinstance(task, kbt.BridgeTowerMaskedLM):
        # Use the blanks of the rows, as `fill_mask` does, not random ones.
        blanks, _ = task.preprocessor.text_with_blanks(raw["text"])
        features |= blanks
    return keras.tree.map_structure(keras.ops.convert_to_numpy, features)


def _spread(count, most):
    """Yield at most `most` row numbers, one from each of equal spans."""
    spans = min(count, most)
    for i in range(spans):
        start, stop = i * count // spans, (i + 1) * count // spans
        # Not always the first: every second row may have the same text.
        yield start + int(i * GOLDEN % 1 * (stop - start))


def _open(row):
    row, inputs = with_pictures(row)
    if row.error:
        raise ValueError(f"Row {row.number} of SOURCE: {row.error}")
    return inputs
