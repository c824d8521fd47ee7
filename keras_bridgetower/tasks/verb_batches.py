"""What a caller gave a verb, as rows of features, in batches of few shapes."""

import keras
import numpy as np

from keras_bridgetower.preprocessing.preprocessor import shortened
from keras_bridgetower.preprocessing.verb_inputs import pictures_of


class Rows:
    """Features that are made already, as rows.

    Args:
        name: str, what errors call them.
        features: dict of arrays.
        single: bool, whether they are of one item and have no batch axis.
    """

    kind = "row"

    def __init__(self, name, features, single=False):
        self.name, self.single = name, single
        self._features = {
            key: np.asarray(x)[None] if single else np.asarray(x)
            for key, x in features.items()
        }
        self.count = len(next(iter(self._features.values())))

    def rows(self, start, stop):
        """Features of some of them; a single one is repeated."""
        if self.single:
            return {
                key: np.broadcast_to(x, (stop - start, *x.shape[1:]))
                for key, x in self._features.items()
            }
        return {key: x[start:stop] for key, x in self._features.items()}


class Texts(Rows):
    """Texts that a caller gave.

    Args:
        preprocessor: a `BridgeTowerPreprocessor`.
        texts: a string, or a list or array of strings.
        name: str, what errors call them.
    """

    kind = "text"

    def __init__(self, preprocessor, texts, name="texts"):
        features = preprocessor.text_features(texts)
        super().__init__(name, features, features["token_ids"].ndim == 1)


class Pictures:
    """Pictures that a caller gave, as `Rows`, read when they are needed.

    Args:
        preprocessor: a `BridgeTowerPreprocessor`.
        images: one picture, or a list or array of pictures.
        pair: bool, whether `images` are two that belong together.
    """

    name, kind = "images", "picture"

    def __init__(self, preprocessor, images, pair=False):
        self._converter = preprocessor.image_converter
        self._images, self.single = pictures_of(images)
        if pair:
            self._images, self.single = [images], True
        self.count = len(self._images)
        self._made = None

    def rows(self, start, stop):
        """Features of some of them; a single one is read once."""
        if not self.single:
            images = self._converter.block(self._images, start, stop)
            return {"images": images}
        if self._made is None:
            # Not by the layer's `__call__`, which would wrap its errors.
            picture = self._converter.call(self._images[0])
            self._made = Rows("images", {"images": picture}, single=True)
        return self._made.rows(start, stop)


def check_some(sources):
    """Refuse sources that are empty.

    Args:
        sources: list of `Rows` and `Pictures`.
    """
    for source in sources:
        if source.count == 0:
            raise ValueError(
                f"`{source.name}` must hold at least one {source.kind}. "
                f"Received: {source.name}=[]"
            )


def check_same_number(sources):
    """Refuse sources that do not belong to each other, or are empty.

    Args:
        sources: list of `Rows` and `Pictures`.

    Raises:
        ValueError: not both single or both of the same number, or none.
    """
    check_some(sources)
    if len({(source.single, source.count) for source in sources}) > 1:
        raise ValueError(
            f"{_named(sources)} must be of the same number, both single or "
            "both in lists; repeat what belongs to several. "
            f"Received: {_counted(sources)}"
        )


def check_same_or_single(sources):
    """As `check_same_number`, but a single one goes with every other."""
    check_some(sources)
    if len({source.count for source in sources if not source.single}) > 1:
        raise ValueError(
            f"{_named(sources)} must be of the same number, or one of them "
            f"single, not in a list. Received: {_counted(sources)}"
        )


def in_batches(function, sources, batch_size, buckets=None, fill=True):
    """Run a function over sources, in batches of few distinct sizes.

    The last batch is filled up to a power of two, so that whatever compiles
    `function` by shape does so a few times only. Pictures of a batch are read
    when its turn comes, while an accelerator is at the one before.

    Args:
        function: callable, from a dict of features to arrays `(rows, ...)`.
        sources: list of `Rows` and `Pictures`, of the same count or single.
        batch_size: int, rows of a batch.
        buckets: tuple of int or None, see `BridgeTowerPreprocessor`.
        fill: bool, whether rows may be added. Of what was drawn among the
            rows of a batch they would be a part.

    Yields:
        `(features, outputs)` of each batch: a dict of arrays, and NumPy
        arrays as the function returns them.

    Raises:
        ValueError: nothing is there, or `batch_size` is no integer from 1.
    """
    if type(batch_size) is not int or batch_size < 1:
        raise ValueError(
            "`batch_size` must be a positive integer. "
            f"Received: batch_size={batch_size!r}"
        )
    check_some(sources)
    count = max(source.count for source in sources)
    waiting = []
    for start in range(0, count, batch_size):
        rows = min(batch_size, count - start)
        size = min(batch_size, 1 << (rows - 1).bit_length()) if fill else rows
        features = {}
        for source in sources:
            features |= source.rows(start, start + rows)
        if buckets is not None and "padding_mask" in features:
            features = shortened(features, buckets)
        made = function({k: filled(x, size) for k, x in features.items()})
        yield from _finished(waiting)
        waiting = [(features, made, rows)]
    yield from _finished(waiting)


def filled(x, size):
    """Rows up to a fixed number, the last one repeated."""
    if len(x) == size:
        return x
    more = np.broadcast_to(x[-1:], (size - len(x), *x.shape[1:]))
    return np.concatenate([x, more])


def joined(batches):
    """All outputs of `in_batches`."""
    outputs = [outputs for _, outputs in batches]
    return keras.tree.map_structure(lambda *x: np.concatenate(x), *outputs)


def _finished(waiting):
    for features, made, rows in waiting:
        yield features, _arrays(made, rows)


def _arrays(made, rows):
    return keras.tree.map_structure(
        lambda x: keras.ops.convert_to_numpy(x)[:rows], made
    )


def _named(sources):
    return " and ".join(f"`{source.name}`" for source in sources)


def _counted(sources):
    return ", ".join(
        f"{s.name}: {'a single one' if s.single else s.count}" for s in sources
    )
