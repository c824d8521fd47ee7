"""Converts labels, given as ids or as names, to class ids."""

import numpy as np

from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import shape_of


class ClassIds:
    """Turns labels into the ids of classes.

    Args:
        names: list of str, the classes in the order of their ids.
        kinds: string, NumPy's letters of the kinds of numbers that are ids:
            `"iu"` for integers, `"biu"` where bools are ids too.
        fix: str, a sentence that errors about unknown classes add.

    Attributes:
        ids: dict from names to ids.

    Call arguments:
        y: ids or names, `(batch,)`, or a single one; a tensor in a graph.
        batched: bool, whether `y` has a batch axis.

    Returns:
        int32 ids like `y`.

    Raises:
        ValueError: an id or a name that is none of the classes, or labels of
            another form.

    Example:

    ```python
    ids = ClassIds(["no", "yes"])
    ids(["yes", "no"]), ids(np.array([1, 0]))  # [1, 0], [1, 0]
    ```
    """

    def __init__(self, names, kinds="iu", fix=""):
        self.names = list(names)
        self.kinds = kinds
        self.fix = fix
        self.ids = {name: i for i, name in enumerate(self.names)}

    def __call__(self, y, batched=True):
        batch = shape_of(y)[:1] if batched else ()
        return apply_numpy(
            lambda y: self._find(y, batched), [y], ("int32", batch)
        )

    def _find(self, y, batched):
        y = np.asarray(y)
        if y.ndim != int(batched) or y.dtype.kind not in self.kinds + "USO":
            raise ValueError(
                f"`y` must be ids from 0 to {len(self.names) - 1} or names, "
                f"one for each sample, of {self._shown()}. "
                f"Received: y of shape {y.shape} and dtype {y.dtype}"
            )
        ids = [self.id_of(value) for value in y.reshape(-1).tolist()]
        return np.array(ids, "int32").reshape(y.shape)

    def id_of(self, value):
        """The id of one class, from its id or its name as str or bytes."""
        value = value.decode() if isinstance(value, bytes) else value
        if isinstance(value, int) and 0 <= value < len(self.names):
            return int(value)
        if value not in self.ids:
            fix = f" {self.fix}" if self.fix else ""
            raise ValueError(
                f"`y` must hold ids from 0 to {len(self.names) - 1} or names "
                f"of {self._shown()}.{fix} Received: y={value!r}"
            )
        return self.ids[value]

    def _shown(self):
        more = ", ..." if len(self.names) > 5 else ""
        return ", ".join(map(repr, self.names[:5])) + more
