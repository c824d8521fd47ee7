"""What is asked of a model: plain values that travel between processes."""

import dataclasses
import io

from PIL import Image

# The rule by which no text is cut, as in `BridgeTowerContrastive.embed`.
REFUSE = "refuse"
# The inputs that are pictures.
IMAGES = {"image", "second_image"}
# The side of the picture that models are warmed up with.
_SIDE = 32


@dataclasses.dataclass(frozen=True)
class ToEmbed:
    """A text, a picture or a pair to embed.

    Args:
        text: str, or None.
        image: bytes of an image file, or `PIL.Image.Image` when it is
            decoded; or None.
        long_texts: what becomes of a text that is too long, as in
            `BridgeTowerContrastive.embed`.
        tokens: int, tokens of the text that are read, or None.
    """

    text: str | None = None
    image: bytes | None = None
    long_texts: str = REFUSE
    tokens: int | None = None

    @property
    def kind(self):
        """`"text"`, `"image"` or `"fused"`."""
        if self.image is None:
            return "text"
        return "image" if self.text is None else "fused"

    @property
    def batch(self):
        """What inputs of one batch have in common."""
        return self.kind, self.long_texts, self.tokens


@dataclasses.dataclass(frozen=True)
class ToMatch:
    """A picture and a text that may match.

    Args:
        image: bytes of an image file, or `PIL.Image.Image` when it is decoded.
        text: str.
    """

    image: bytes
    text: str

    batch = ()


@dataclasses.dataclass(frozen=True)
class ToAsk:
    """A question about a picture, or a text with blanks.

    Args:
        image: bytes of an image file, or `PIL.Image.Image` when it is decoded.
        text: str.
        top_k: int, how many answers are wanted.
    """

    image: bytes
    text: str
    top_k: int = 1

    batch = ()


@dataclasses.dataclass(frozen=True)
class ToPredict:
    """The inputs of a `Verb` without a route of its own.

    Args:
        image, second_image: bytes of an image file, or `PIL.Image.Image` when
            it is decoded; or None.
        text, second_text: str, or None.
        top_k: int, results that are wanted.
    """

    image: bytes | None = None
    second_image: bytes | None = None
    text: str | None = None
    second_text: str | None = None
    top_k: int = 1

    @property
    def columns(self):
        """Names of the inputs that are present."""
        names = ("image", "second_image", "text", "second_text")
        return tuple(n for n in names if getattr(self, n) is not None)

    @property
    def batch(self):
        """What inputs of one batch have in common."""
        return self.columns, self.top_k


@dataclasses.dataclass(frozen=True)
class ToFind:
    """What to look for in an index.

    Args:
        text: str, or None.
        image: bytes of an image file, or `PIL.Image.Image` when it is
            decoded; or None.
        top_k: int, how many pictures are wanted.
        rerank: int, how many the matching head orders.
    """

    text: str | None
    image: bytes | None
    top_k: int
    rerank: int


def input_images(one):
    """Return the images of an input by the names of its fields."""
    found = {name: getattr(one, name, None) for name in sorted(IMAGES)}
    return {name: image for name, image in found.items() if image is not None}


def examples(verb, kinds, columns=()):
    """An input of each kind that a verb takes, to warm a model up.

    Args:
        verb: str, `"embed"`, `"score"`, `"answer"`, `"fill"`, or the name of
            a `Verb` without a route of its own.
        kinds: tuple of str, what can be embedded.
        columns: tuple of str, the inputs of that `Verb`.

    Returns:
        list of the classes above.
    """
    image = _picture()
    if columns:
        given = {name: image if name in IMAGES else "a" for name in columns}
        return [ToPredict(**given)]
    if verb == "embed":
        text = {"text": "a", "image": None, "fused": "a"}
        return [
            ToEmbed(text[kind], None if kind == "text" else image)
            for kind in kinds
        ]
    if verb == "score":
        return [ToMatch(image, "a")]
    return [ToAsk(image, "<mask>" if verb == "fill" else "a")]


def _picture():
    """The bytes of a small grey picture."""
    file = io.BytesIO()
    Image.new("RGB", (_SIDE, _SIDE), "grey").save(file, "PNG")
    return file.getvalue()
