"""Inputs of models, as plain values that are sent between processes."""

import dataclasses
import io

from PIL import Image

# Rejects long texts; see `BridgeTowerContrastive.embed`.
REFUSE = "refuse"
# Inputs that are pictures.
IMAGES = {"image", "second_image"}


@dataclasses.dataclass(frozen=True)
class ToEmbed:
    """A text, a picture or a pair to embed.

    Args:
        text: str, or None.
        image: bytes of an image file, `PIL.Image.Image` once decoded, or None.
        long_texts: str, as in `BridgeTowerContrastive.embed`.
        tokens: int, number of tokens that are read, or None.
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
        """Tuple that all inputs of a batch share."""
        return self.kind, self.long_texts, self.tokens


@dataclasses.dataclass(frozen=True)
class ToPredict:
    """The inputs of a `Verb`.

    Args:
        image, second_image: bytes of an image file, `PIL.Image.Image` once
            decoded, or None.
        text, second_text: str, or None.
        top_k: int, number of results.
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
        """Tuple that all inputs of a batch share."""
        return self.columns, self.top_k


@dataclasses.dataclass(frozen=True)
class ToFind:
    """A query to an index.

    Args:
        text: str, or None.
        image: bytes of an image file, `PIL.Image.Image` once decoded, or None.
        top_k: int, number of pictures.
        rerank: int, number of pictures that the matching head reranks.
    """

    text: str | None
    image: bytes | None
    top_k: int
    rerank: int


def input_images(one):
    """Return a dict of the images of an input, by field."""
    found = {name: getattr(one, name, None) for name in sorted(IMAGES)}
    return {name: image for name, image in found.items() if image is not None}


def picture():
    """Return the bytes of a small gray picture, for warm-up."""
    file = io.BytesIO()
    Image.new("RGB", (32, 32), "grey").save(file, "PNG")
    return file.getvalue()
