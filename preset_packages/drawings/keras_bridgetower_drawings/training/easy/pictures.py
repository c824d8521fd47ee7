"""easy-VQA: a small real benchmark that comes as a Python package.

64 x 64 pictures of one coloured shape and templated questions, 13 answers.
Splits are by picture: `"train"` holds the training pictures 0 to 3499,
`"validation"` the training pictures 3500 to 3999, `"test"` the official
1,000. Nothing is ever chosen on the test split.

Source: Victor Zhou, easy-VQA, version 1.0 (MIT).
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from PIL import Image

SIDE = 64  # pixels
VALIDATION_FROM = 3500
# Every channel of a background lies in 230..255.
BACKGROUND_FROM = 230
# Score of the majority answer to each question, pictures unseen, in percent.
BLIND_TEST_SCORES = {"overall": 67.00, "yes/no": 82.54}
SHAPES = ("rectangle", "circle", "triangle")
COLOURS = {
    "black": (0, 0, 0),
    "gray": (128, 128, 128),
    "red": (255, 0, 0),
    "green": (0, 255, 0),
    "blue": (0, 0, 255),
    "yellow": (255, 255, 0),
    "teal": (0, 128, 128),
    "brown": (165, 42, 42),
}


@dataclasses.dataclass(frozen=True)
class EasyVQA:
    """A split."""

    images: np.ndarray  # uint8 `(pictures, 64, 64, 3)`.
    image_index: np.ndarray  # `(questions,)`, the picture of each question.
    questions: list
    answers: list


class Attributes(NamedTuple):
    """The shape of a picture."""

    shape: str
    colour: str
    box: tuple  # Top, left, bottom, right, in pixels, ends excluded.


def load(split):
    import easy_vqa

    start, end = {
        "train": (0, VALIDATION_FROM),
        "validation": (VALIDATION_FROM, None),
        "test": (0, None),
    }[split]
    if split == "test":
        paths = easy_vqa.get_test_image_paths()
        questions = easy_vqa.get_test_questions()
    else:
        paths = easy_vqa.get_train_image_paths()
        questions = easy_vqa.get_train_questions()
    rows = zip(*questions, strict=True)
    kept = sorted(paths)[start:end]
    position = {image: row for row, image in enumerate(kept)}
    rows = [row for row in rows if row[2] in position]
    return EasyVQA(
        images=np.stack([_read(paths[i]) for i in kept]),
        image_index=np.array([position[i] for _, _, i in rows]),
        questions=[question for question, _, _ in rows],
        answers=[answer for _, answer, _ in rows],
    )


def answer_list():
    """Return the 13 answers in the package's order."""
    import easy_vqa

    return list(easy_vqa.get_answers())


def question_kind(answer):
    """Return the kind of an answer: `"yes/no"`, `"shape"` or `"colour"`."""
    if answer in ("yes", "no"):
        return "yes/no"
    return "shape" if answer in SHAPES else "colour"


def attributes(image):
    """Measure shape, color and place from the pixels.

    The colour is the most frequent palette colour; a rectangle fills the
    extent of that colour, a triangle has little in its upper half. The box is
    the extent of all that is not background, soft edges included.
    """
    colour, pure = pure_colour(image)
    top, left, bottom, right = box_of(pure)
    inside = pure[top:bottom, left:right]
    middle = len(inside) // 2
    if inside.mean() > 0.95:
        shape = "rectangle"
    elif inside[:middle].sum() < 0.7 * inside[-middle:].sum():
        shape = "triangle"
    else:
        shape = "circle"
    shown = _codes(image) != _codes(background(image))
    return Attributes(shape, colour, box_of(shown))


def background(image):
    """Return the color behind the shape, uint8 `(3,)`."""
    red, green, blue = np.moveaxis(image, -1, 0) >= BACKGROUND_FROM
    light = image[red & green & blue]
    codes, first, counts = np.unique(
        _codes(light), return_index=True, return_counts=True
    )
    return light[first[counts.argmax()]]


def shape_mask(image):
    """Return the pixels that the shape covers by more than half.

    Edges are soft, and near them the background rings a little; how far the
    ringing shows depends on the colour, this mask does not.
    """
    behind = background(image).astype("float64")
    change = np.array(COLOURS[pure_colour(image)[0]]) - behind
    return (image - behind) @ change > (change @ change) / 2


def pure_colour(image):
    """Return the most frequent palette color, and the mask of its pixels."""
    codes = _codes(image)
    masks = {name: codes == code for name, code in _COLOUR_CODES.items()}
    colour = max(masks, key=lambda name: np.count_nonzero(masks[name]))
    return colour, masks[colour]


def _codes(image):
    red, green, blue = np.moveaxis(image.astype("int32"), -1, 0)
    return (red << 16) + (green << 8) + blue


_COLOUR_CODES = {
    name: int(_codes(np.array(rgb))) for name, rgb in COLOURS.items()
}


def box_of(mask):
    """Return top, left, bottom and right of what a mask covers."""
    rows, columns = (np.flatnonzero(mask.any(axis)) for axis in (1, 0))
    ends = rows[0], columns[0], rows[-1] + 1, columns[-1] + 1
    return tuple(map(int, ends))


def _read(path):
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB"))
