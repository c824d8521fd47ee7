"""Opens and changes the `index.json` of a data set, under a lock.

Several processes may write splits of one data set at the same time.
"""

import json
import re

from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records.seal import sealed
from keras_bridgetower.files import write_atomically
from keras_bridgetower.presets.locks import locked

LOCK = f"{form.INDEX}.lock"


def open_index(folder, task, labels):
    """Read the index of a folder, or make a new one.

    Args:
        folder: path of the data set.
        task: one of `TASKS`.
        labels: list of str.

    Returns:
        dict, as `read_index` returns it.

    Raises:
        ValueError: the folder holds a data set with other labels or of
            another task.
    """
    new = {
        "schema_version": form.SCHEMA_VERSION,
        "task": task,
        "labels": labels,
        "splits": {},
    }
    if not (folder / form.INDEX).exists():
        return new
    index = form.read_index(folder)
    if (index["task"], index["labels"]) != (task, labels):
        raise ValueError(
            "All splits of a data set have one task and one list of labels; "
            f"this folder holds task {index['task']!r} with "
            f"{len(index['labels'])} labels. Choose another folder. Received: "
            f"task={task!r} with {len(labels)} labels"
        )
    return index


def save_split(folder, task, labels, split, entry):
    """Put one split into the index and keep what others wrote meanwhile.

    Args:
        folder: path of the data set.
        task, labels: as `open_index`.
        split: str.
        entry: dict, the entry of the split in the index.
    """
    with locked(folder / LOCK):
        index = open_index(folder, task, labels)
        index["splits"][split] = entry
        text = json.dumps(sealed(index), indent=1, ensure_ascii=False)
        data = text.encode()
        write_atomically(folder / form.INDEX, lambda file: file.write(data))


def remove_others(folder, split, entry):
    """Remove shards of a split that its entry in the index does not name.

    Args:
        folder: path of the data set.
        split: str.
        entry: dict, the entry of the split in the index.
    """
    named = {shard["file"] for shard in entry["shards"]}
    shard = re.compile(
        rf"({re.escape(split)}-\d{{5,}}-of-\d{{5,}})"
        r"(\.tfrecord|\.offsets\.npy)(\.part)?"
    )
    for path in folder.iterdir():
        found = shard.fullmatch(path.name)
        if found and f"{found[1]}.tfrecord" not in named:
            path.unlink()
