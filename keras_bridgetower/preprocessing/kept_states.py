"""`KeptStates`: states of a frozen tower on disk, in place of its inputs."""

import hashlib
import pathlib
import weakref

import numpy as np

from keras_bridgetower.files import write_atomically
from keras_bridgetower.preprocessing.state_files import damaged_states
from keras_bridgetower.preprocessing.state_files import open_states
from keras_bridgetower.preprocessing.state_files import read_identity
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import static_shape

_ITEMS = "items.bin"
_SUM = 32


class KeptStates:
    """States of pictures or texts, which `keep_states` of a task has written.

    They take the place of the pictures or texts in `fit`, `evaluate`,
    `predict` and the verbs of a task whose tower is the same. They are read
    from disk batch by batch; those of `image_states` have no folder, and are in
    memory.

    Args:
        folder: path of the folder that `keep_states` wrote.
        rows: int array of any shape, which items these are, or None for all.

    Attributes:
        shape: tuple of int, that of `rows`.
        identity: dict of plain values: what the states are of.

    Raises:
        ValueError: the folder has no states, or files of it were changed.

    Example:

    ```python
    task = kbt.BridgeTowerRetrieval.from_preset(
        "bridgetower_tiny_easy_retrieval")
    pictures = list(np.zeros((2, 64, 64, 3), "uint8"))
    states = task.keep_states("states", images=pictures)
    task.score(states[[0, 1, 1]], "a red circle").shape  # (3,)
    ```
    """

    def __init__(self, folder, rows=None):
        self.folder = pathlib.Path(folder)
        self.identity = read_identity(self.folder)
        try:
            data = (self.folder / _ITEMS).read_bytes()
            if hashlib.sha256(data[:-_SUM]).digest() != data[-_SUM:]:
                raise ValueError(f"{_ITEMS} was changed")
        except (OSError, ValueError) as error:
            raise damaged_states(self.folder, error) from error
        sums = [data[i : i + _SUM].hex() for i in range(0, len(data), _SUM)]
        self._stored, there = open_states(folder, self.identity).read(sums[:-1])
        if not all(there):
            raise damaged_states(
                self.folder, f"{there.count(False)} items lack"
            )
        # The task whose tower they were found to be of.
        self.checked_for = lambda: None
        copies = self.identity["variants"] + 1
        every = np.arange(len(there) // copies)
        self.rows = every if rows is None else every[np.asarray(rows)]

    @property
    def shape(self):
        return self.rows.shape

    @property
    def ndim(self):
        return self.rows.ndim

    def __len__(self):
        return len(self.rows)

    def __getitem__(self, some):
        """Return the states of some items, in their order."""
        other = object.__new__(KeptStates)
        other.__dict__.update(self.__dict__, rows=self.rows[some])
        return other

    def read(self, step=None):
        """Read states.

        Args:
            step: int, by which a variant of each item is drawn; None for the
                items as they are.

        Returns:
            float32 array `(*shape, tokens, width)`.
        """
        return self._read_rows(self.rows, step)

    def _read_rows(self, rows, step=None):
        """Read the states of items, by their numbers."""
        count = self.identity["variants"]
        places = np.asarray(rows).reshape(-1) * (count + 1)
        if count and step is not None:
            rng = np.random.default_rng(int(step))
            places = places + rng.integers(1, count + 1, len(places))
        states = self._stored[places]
        return states.reshape(*np.shape(rows), *states.shape[1:])


def read_rows(states, rows, step=None):
    """Read the states of items by their numbers, also in a graph of `tf.data`.

    Args:
        states: `KeptStates`.
        rows: int array or tensor of any shape.
        step: as in `KeptStates.read`, also a tensor.
    """
    spec = "float32", (*static_shape(rows), *states.identity["shape"])
    given = [rows] if step is None else [rows, step]
    return apply_numpy(states._read_rows, given, spec)


def text_features(states):
    """Return the features of texts, of their states.

    Args:
        states: float32 `(batch, tokens, width)`, 0 at padding.
    """

    def tokens(states):
        return (states != 0).any(-1).astype("int32")

    spec = "int32", static_shape(states)[:-1]
    mask = apply_numpy(tokens, [states], spec)
    return {"token_ids": states, "segment_ids": mask * 0, "padding_mask": mask}


def in_memory(stored, identity, task):
    """Return `KeptStates` without a folder.

    Args:
        stored: float32 array `(items, tokens, width)`, or `StoredStates`.
        identity: dict of plain values: what the states are of.
        task: the task that computed them.
    """
    states = object.__new__(KeptStates)
    states.folder, states.identity, states._stored = None, identity, stored
    states.checked_for, states.rows = weakref.ref(task), np.arange(len(stored))
    return states


def finish(folder, sums):
    """Write the checksums of all items, in their order."""
    data = b"".join(map(bytes.fromhex, sums))
    data += hashlib.sha256(data).digest()
    path = pathlib.Path(folder, _ITEMS)
    write_atomically(path, lambda file: file.write(data))
