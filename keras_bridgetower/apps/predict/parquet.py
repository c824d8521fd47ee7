"""Results of a task as a Parquet file, with one column for each value."""

import io
import json

from keras_bridgetower.apps.predict.rows import ID
from keras_bridgetower.apps.predict.verbs import VERBS


def to_parquet(results, name):
    """Results of rows as the content of a Parquet file.

    Args:
        results: list of dicts without `"error"`, as `results_of` makes them.
        name: str, key of `VERBS`.

    Returns:
        bytes. The columns are `row`, `id` (a string; other values as JSON),
        the columns that the task reads, and what it returns.
    """
    import pyarrow
    from pyarrow import parquet

    verb = VERBS[name]
    texts = (ID, *verb.columns, *verb.optional)
    fields = [("row", pyarrow.int64())]
    fields += [(column, pyarrow.string()) for column in texts]
    fields += [(column, _type(pyarrow, column)) for column in verb.results]
    rows = [
        {
            "row": result["row"],
            **{column: _text(result.get(column)) for column in texts},
            **{c: _PLAIN.get(c, _same)(result[c]) for c in verb.results},
        }
        for result in results
    ]
    table = pyarrow.Table.from_pylist(rows, pyarrow.schema(fields))
    file = io.BytesIO()
    parquet.write_table(table, file)
    return file.getvalue()


def _type(pyarrow, column):
    number = pyarrow.float64()

    def scored(name, score):
        pair = [(name, pyarrow.string()), (score, number)]
        return pyarrow.list_(pyarrow.struct(pair))

    return {
        "answers": scored("answer", "score"),
        "masks": pyarrow.list_(scored("token", "probability")),
        "filled": pyarrow.string(),
        "label": pyarrow.string(),
        "probabilities": scored("label", "probability"),
        "true": pyarrow.bool_(),
        "embedding": pyarrow.list_(pyarrow.float32()),
    }.get(column, number)


def _pairs(name, score):
    """Pairs of a text and a number as dicts, which Parquet can hold."""

    def pairs(found):
        return [{name: text, score: number} for text, number in found]

    return pairs


def _same(value):
    return value


# What of results is not plain already.
_PLAIN = {
    "answers": _pairs("answer", "score"),
    "masks": lambda masks: [_pairs("token", "probability")(m) for m in masks],
    "probabilities": lambda found: _pairs("label", "probability")(
        found.items()
    ),
}


def _text(value):
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value)
