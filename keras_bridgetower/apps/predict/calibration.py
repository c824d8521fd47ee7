"""Features of a table's rows, on which `export` measures ranges for int8."""

import keras

from keras_bridgetower.apps.predict.batches import with_pictures
from keras_bridgetower.apps.predict.rows import PICTURES
from keras_bridgetower.apps.predict.rows import open_rows
from keras_bridgetower.apps.predict.verbs import PAIR
from keras_bridgetower.apps.predict.verbs import VERBS
from keras_bridgetower.tasks.masked_lm import BridgeTowerMaskedLM

# Ranges change little with more of them.
MOST = 256
# Its multiples, modulo 1, fill any span evenly.
GOLDEN = 0.618


def samples_of(task, source, texts=(), most=MOST):
    """Prepare rows as the task takes them.

    Args:
        task: a task with a preprocessor.
        source: path of a folder of pictures, or of a table with the columns
            that `predict` reads.
        texts: list of str. Each row of the source is taken with each.
        most: int. Of more rows these many are taken, spread evenly.

    Returns:
        dict of features, as the preprocessor makes them.

    Raises:
        ValueError: a source that does not fit, or a row that cannot be read.
    """
    verbs = [verb for verb in VERBS.values() if verb.task is type(task)]
    columns = dict.fromkeys(c for verb in verbs for c in verb.columns)
    optional = dict.fromkeys(c for verb in verbs for c in verb.optional)
    rows = open_rows(source, tuple(columns) or PAIR, tuple(optional), texts)
    chosen = set(_spread(rows.count, most))
    taken = [_taken(row) for row in rows if row.number in chosen]
    found = {name: [row[name] for row in taken] for name in taken[0]}
    raw = {k: v for k, v in found.items() if k not in PICTURES}
    if "image" in found:
        raw["images"] = found["image"]
    if "second_image" in found:
        pairs = zip(found["image"], found["second_image"], strict=True)
        raw["images"] = list(pairs)
    return {
        name: keras.ops.convert_to_numpy(value)
        for name, value in _features(task, raw).items()
    }


def _features(task, raw):
    """What the task reads of raw rows, without their labels."""
    made = task.preprocessor(raw)
    features, _, _ = keras.utils.unpack_x_y_sample_weight(made)
    if isinstance(task, BridgeTowerMaskedLM):
        # Of the blanks in the rows, as its verb reads them.
        blanks, _ = task.preprocessor.text_with_blanks(raw["text"])
        features |= blanks
    return features


def _spread(count, most):
    """Numbers of rows, at most so many, one out of each of equal spans."""
    spans = min(count, most)
    for i in range(spans):
        start, stop = i * count // spans, (i + 1) * count // spans
        # Not always the first: every second row may have the same text.
        yield start + int(i * GOLDEN % 1 * (stop - start))


def _taken(row):
    """What a row holds, with its pictures opened."""
    row, taken = with_pictures(row)
    if row.error:
        raise ValueError(f"Row {row.number} of SOURCE: {row.error}")
    return taken
