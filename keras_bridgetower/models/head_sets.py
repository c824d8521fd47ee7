"""The heads of a task as one layer, saved and loaded by name."""

import keras


class HeadSet(keras.layers.Layer):
    """The heads of a task, stored by name.

    Args:
        heads: dict from name to layer.
    """

    def __init__(self, heads):
        super().__init__(name="heads", dtype=_policy(heads))
        for name, head in heads.items():
            setattr(self, name, head)
        self._names = tuple(heads)
        self.built = True

    def __getitem__(self, name):
        return getattr(self, name)

    def __iter__(self):
        return iter(self._names)

    def save(self, path):
        """Save all heads to a `.weights.h5` file."""
        keras.saving.save_weights(self, path)

    def load(self, path, without=()):
        """Load these heads, except `without`, from a file of heads."""
        named = {n: self[n] for n in self._names if n not in without}
        if named:
            keras.saving.load_weights(HeadSet(named), path)


def _policy(heads):
    return next((head.dtype_policy for head in heads.values()), None)
