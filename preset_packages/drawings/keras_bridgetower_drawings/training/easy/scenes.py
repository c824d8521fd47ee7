"""Measure shape, color and place in easy-VQA's pictures, for texts on them.

Derived from easy-VQA: the pictures are the package's own, the attributes are
measured from their pixels, the texts are made from templates. The world is
tiny, so that scores on it prove wiring and learning, not quality on real
pictures: report the blind scores beside them. Splits are those of `load`.
"""

import dataclasses

import numpy as np

from keras_bridgetower_drawings.training.easy import pictures

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
    "shape": pictures.SHAPES,
    "colour": tuple(pictures.COLOURS),
    "size": SIZES,
    "position": POSITIONS,
}


@dataclasses.dataclass(frozen=True)
class Scenes:
    """The pictures of a split and their attributes, int arrays."""

    split: str
    data: pictures.EasyVQA
    # `(pictures, 4)`: indices into `ATTRIBUTES`.
    values: np.ndarray
    # `(pictures,)`, the longer side in pixels, to the middle of soft edges.
    sides: np.ndarray
    # `(pictures, 4)`: top, left, bottom, right, with and without soft edges.
    boxes: np.ndarray
    pure_boxes: np.ndarray

    @property
    def groups(self):
        """int array `(pictures,)`: equal where all four attributes are."""
        sizes = [len(words) for words in ATTRIBUTES.values()]
        return np.ravel_multi_index(tuple(self.values.T), sizes)

    def words(self, picture):
        """dict from attribute to its word for one picture."""
        return words_of(self.values[picture])

    def generator(self, seed):
        return np.random.default_rng([seed, SPLITS.index(self.split)])


def load_scenes(split):
    data = pictures.load(split)
    measured = zip(*map(_measure, data.images), strict=True)
    return Scenes(split, data, *map(np.array, measured))


def moved(scenes, seed):
    """Move the shapes to other places, half of them mirrored.

    For training: what the pictures show is true of the places they moved to.
    """
    rng = scenes.generator(seed)
    boxes = scenes.boxes
    # Steps down and to the right, so that no shape leaves its picture.
    steps = rng.integers(
        -boxes[:, :2], pictures.SIDE - boxes[:, 2:], endpoint=True
    )
    mirrored = rng.random(len(boxes)) < 0.5
    images = np.stack(
        [
            np.roll(image, step, axis=(0, 1))[:, :: -1 if mirror else 1]
            for image, step, mirror in zip(
                scenes.data.images, steps, mirrored, strict=True
            )
        ]
    )

    def follow(boxes):
        boxes = boxes + np.tile(steps, 2)
        flipped = boxes.copy()
        flipped[:, [1, 3]] = pictures.SIDE - boxes[:, [3, 1]]
        return np.where(mirrored[:, None], flipped, boxes)

    pure_boxes = follow(scenes.pure_boxes)
    values = scenes.values.copy()
    values[:, 3] = [_position(box) for box in pure_boxes]
    return dataclasses.replace(
        scenes,
        data=dataclasses.replace(scenes.data, images=images),
        values=values,
        boxes=follow(boxes),
        pure_boxes=pure_boxes,
    )


def words_of(values):
    """dict from attribute to word, of four indices into `ATTRIBUTES`."""
    return {
        name: words[value]
        for (name, words), value in zip(ATTRIBUTES.items(), values, strict=True)
    }


def _measure(image):
    """Values, longer side, and both boxes of a picture."""
    shown = pictures.attributes(image)
    pure = pictures.box_of(pictures.pure_colour(image)[1])
    top, left, bottom, right = pure
    values = (
        pictures.SHAPES.index(shown.shape),
        ATTRIBUTES["colour"].index(shown.colour),
        int(np.digitize(max(bottom - top, right - left), SIZES_FROM)),
        _position(pure),
    )
    top, left, bottom, right = pictures.box_of(pictures.shape_mask(image))
    return values, max(bottom - top, right - left), shown.box, pure


def _position(box):
    """Index into `POSITIONS`, by the thirds of twice the box's centre."""
    top, left, bottom, right = box
    row, column = (
        (low + high) * 3 // (2 * pictures.SIDE)
        for low, high in ((top, bottom), (left, right))
    )
    return int(3 * row + column)
