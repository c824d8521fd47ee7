"""`Asked`: an input of a model, which is sent between processes."""

import dataclasses

# Rejects long texts; see `BridgeTowerContrastive.embed`.
REFUSE = "refuse"
# Inputs that are pictures.
IMAGES = ("image", "second_image")


@dataclasses.dataclass(frozen=True)
class Asked:
    """The inputs of a verb, or a query to an index.

    Args:
        text, second_text: str, or None.
        image, second_image: bytes of an image file, `PIL.Image.Image` once
            decoded, or None.
        top_k: int, number of results.
        long_texts: str, as in `BridgeTowerContrastive.embed`.
        most: int, tokens of the text beyond which it is cut; 0 for no cut.
        tokens: int, tokens of an embedded text that are read, or None for the
            server's own number.
        rerank: int, number of pictures of an index that the matching head
            reranks; None as in `PictureSearch.query`.
    """

    text: str | None = None
    image: bytes | None = None
    second_text: str | None = None
    second_image: bytes | None = None
    top_k: int = 1
    long_texts: str = REFUSE
    most: int = 0
    tokens: int | None = None
    rerank: int | None = None

    @property
    def columns(self):
        """Names of the inputs that are present."""
        names = (*IMAGES, "text", "second_text")
        return tuple(n for n in names if getattr(self, n) is not None)

    @property
    def batch(self):
        """Tuple that all inputs of a batch share."""
        return self.columns, self.top_k, self.tokens

    @property
    def images(self):
        """Dict of the images, by field."""
        return {n: getattr(self, n) for n in self.columns if n in IMAGES}
