"""Make pictures of figures small enough for the repository."""

import io

from PIL import Image


def few_colours(picture, widest=None):
    """Return a picture as a PNG file of few colors, a third of the size."""
    if isinstance(picture, bytes):
        picture = io.BytesIO(picture)
    file = io.BytesIO()
    with Image.open(picture) as opened:
        made = opened.convert("RGB")
        if widest:
            made.thumbnail((widest, 4 * widest))
        # The usual method turns red into brown where little of it is red.
        made = made.quantize(
            256,
            method=Image.Quantize.MAXCOVERAGE,
            kmeans=2,
            dither=Image.Dither.NONE,
        )
        made.save(file, "PNG", optimize=True)
    return file.getvalue()
