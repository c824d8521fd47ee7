"""What easy-VQA's pictures show: the ground of tasks derived from it.

Derived from easy-VQA: the pictures are the package's own, the attributes are
measured from their pixels, the texts are made from templates. The world is
tiny, so that scores on it prove wiring and learning, not quality on real
pictures: report the blind scores beside them. Splits are those of `load`.
"""

import dataclasses

import numpy as np

from keras_bridgetower.data.easy_vqa import COLOURS
from keras_bridgetower.data.easy_vqa import SHAPES
from keras_bridgetower.data.easy_vqa import SIDE
from keras_bridgetower.data.easy_vqa import EasyVQA
from keras_bridgetower.data.easy_vqa import attributes
from keras_bridgetower.data.easy_vqa import load
from keras_bridgetower.data.easy_vqa import shape_mask

SPLITS = ("train", "validation", "test")
# By the longer side of what has the pure colour, which leaves out the soft
# edges, more of them in triangles: below 16 pixels, below 24, from 24.
SIZES = ("small", "medium", "large")
SIZES_FROM = (16, 24)
# One word each, so that each can be masked. North is up.
POSITIONS = (
    *("northwest", "north", "northeast"),
    *("west", "center", "east"),
    *("southwest", "south", "southeast"),
)
ATTRIBUTES = {
    "shape": SHAPES,
    "colour": tuple(COLOURS),
    "size": SIZES,
    "position": POSITIONS,
}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The pictures of a split and what they show.

    Args:
        split: str.
        data: `EasyVQA`.
        values: int array `(pictures, 4)`: for shape, colour, size and
            position the index into `ATTRIBUTES`.
        sides: int array `(pictures,)`, the longer side of each shape in
            pixels, to the middle of its soft edges.
    """

    split: str
    data: EasyVQA
    values: np.ndarray
    sides: np.ndarray

    @property
    def groups(self):
        """int array `(pictures,)`: equal where all four attributes are."""
        sizes = [len(words) for words in ATTRIBUTES.values()]
        return np.ravel_multi_index(tuple(self.values.T), sizes)

    def words(self, picture):
        """dict from attribute to its word for one picture."""
        return words_of(self.values[picture])

    def generator(self, seed):
        """A NumPy generator that differs between splits."""
        return np.random.default_rng([seed, SPLITS.index(self.split)])


def load_scenes(split):
    """Read a split and measure what its pictures show.

    Args:
        split: `"train"`, `"validation"` or `"test"`.

    Returns:
        `Scenes`.

    Raises:
        ImportError: the package `easy-vqa` is not installed.
        ValueError: no such split.

    Example:

    ```python
    scenes = load_scenes("validation")
    scenes.words(0)
    # {"shape": "circle", "colour": "blue", "size": "small", ...}
    ```
    """
    data = load(split)
    measured = [_measure(image) for image in data.images]
    return Scenes(
        split,
        data,
        values=np.array([values for values, _ in measured]),
        sides=np.array([side for _, side in measured]),
    )


def words_of(values):
    """dict from attribute to word, of four indices into `ATTRIBUTES`."""
    return {
        name: words[value]
        for (name, words), value in zip(ATTRIBUTES.items(), values, strict=True)
    }


def _measure(image):
    shown = attributes(image)
    pure = (image == np.uint8(COLOURS[shown.colour])).all(-1)
    top, left, bottom, right = _box(pure)
    values = (
        SHAPES.index(shown.shape),
        ATTRIBUTES["colour"].index(shown.colour),
        int(
            np.searchsorted(
                SIZES_FROM, max(bottom - top, right - left), side="right"
            )
        ),
        # Thirds of the picture, by twice the centre of the box.
        3 * ((top + bottom) * 3 // (2 * SIDE))
        + (left + right) * 3 // (2 * SIDE),
    )
    top, left, bottom, right = _box(shape_mask(image))
    return values, max(bottom - top, right - left)


def _box(mask):
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    ends = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    return tuple(map(int, ends))
