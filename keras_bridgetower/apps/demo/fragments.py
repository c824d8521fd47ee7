"""Renders results as HTML and pictures."""

import base64
import html
import io
import pathlib
import textwrap

import numpy as np
from PIL import Image

_SIZE = (384, 384)
_ORANGE = np.array((255, 106, 0), "float32")
_STRONGEST = 0.78


def bars(rows):
    """Render `(name, share)` as bars, shares in 0..1."""
    lines = "".join(
        f'<li><span class="kb-name">{html.escape(name)}</span>'
        f'<span class="kb-track"><span style="width:{100 * share:.1f}%">'
        f'</span></span><span class="kb-share">{100 * share:.1f} %</span></li>'
        for name, share in rows
    )
    return f'<ol class="kb-bars">{lines}</ol>'


def label(text):
    return f'<p class="kb-label">{html.escape(text)}</p>'


def answer(text, rows, note):
    """Render the best answer in large letters, then bars and a note."""
    return (
        f'<p class="kb-answer">{html.escape(text)}</p>{bars(rows)}{small(note)}'
    )


def result(name, kind, value):
    """Render a result of a verb, by its name and type in `Verb.results`."""
    if isinstance(kind, list):
        return "".join(result(name, kind[0], one) for one in value)
    if isinstance(kind, tuple):
        pairs = value.items() if isinstance(value, dict) else value
        return label(name) + bars(sorted(pairs, key=lambda pair: -pair[1]))
    if kind is list:
        value = f"{len(value)} numbers"
    elif kind is float:
        value = f"{value:.4g}"
    return f'{label(name)}<p class="kb-answer">{html.escape(str(value))}</p>'


def filled(words, parts, note):
    """Render a text with the best word at each blank, and bars for each.

    Args:
        words: for each blank a list of `(word, probability)`, best first.
        parts: list of str, the text around the blanks.
        note: str, the meaning of the probabilities.
    """
    first, *rest = map(html.escape, parts)
    text = first
    for best, part in zip(words, rest, strict=True):
        text += f" <mark>{html.escape(best[0][0])}</mark>{part}"
    blanks = "".join(
        (label(f"Blank {number}") if len(words) > 1 else "") + bars(rows)
        for number, rows in enumerate(words, 1)
    )
    return f'<p class="kb-answer">{text}</p>{blanks}{small(note)}'


def marked_words(title, words, weights):
    """Render words on orange, stronger for larger weights, which are >= 0."""
    top = max(weights) or 1.0
    marked = " ".join(
        f'<span style="--kb-share:{100 * weight / top:.0f}%">'
        f"{html.escape(word)}</span>"
        for word, weight in zip(words, weights, strict=True)
    )
    return f'{label(title)}<p class="kb-words">{marked}</p>'


def heat_map(texts, pictures, shares, note):
    """Render a table of texts and pictures, each cell colored by its share.

    Args:
        texts: list of M str.
        pictures: list of N `PIL.Image.Image`.
        shares: array `(M, N)` in 0..1.
        note: str, the meaning of the shares.
    """
    head = "".join(
        f'<th scope="col"><img alt="Picture {number}" src="{_inline(p)}"></th>'
        for number, p in enumerate(pictures, 1)
    )
    rows = ""
    for text, row in zip(texts, shares, strict=True):
        cells = "".join(
            f'<td class="kb-cell" style="--kb-share:{100 * share:.0f}%">'
            f"{100 * share:.0f} %</td>"
            for share in row
        )
        rows += f'<tr><th scope="row">{html.escape(text)}</th>{cells}</tr>'
    return (
        '<div class="kb-scroll" tabindex="0" role="region" '
        'aria-label="Heat map of texts and pictures"><table class="kb-table">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div>{small(note)}"
    )


def found(hits, good, searched, unreadable):
    """Render the summary of a search.

    Args:
        hits: list of pairs with a `Hit`.
        good: int, how many of them come before the largest drop of the score.
        searched: int, number of pictures.
        unreadable: list of str, names of files that are not pictures.
    """
    best = pathlib.Path(hits[0][1].path).stem if hits else "Nothing"
    names = textwrap.shorten(", ".join(unreadable), 200, placeholder=" …")
    left_out = f" Left out, as they cannot be read: {names}." if names else ""
    if good >= len(hits):
        end = "All that are shown match about equally well."
    else:
        end = f"Good hits end with number {good}: there the score drops most."
    return (
        f'<p class="kb-answer">{html.escape(best)}</p>'
        f"<p>The best of {searched:,} pictures. "
        f"{end} The higher a score, the better "
        "text and picture match; it is not a percentage."
        f"{html.escape(left_out)}</p>"
    )


def small(text):
    return f'<p class="kb-note">{html.escape(text)}</p>'


def _inline(picture):
    """Return a thumbnail as a `data:` URL."""
    small = picture.copy()
    small.thumbnail((96, 96), Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def overlay(picture, weights):
    """Draw a picture in gray, with weights over it in orange.

    Args:
        picture: float array `(S, S, 3)` in 0..1.
        weights: float array `(rows, columns)`, not negative.

    Returns:
        `PIL.Image.Image` of mode RGB.
    """
    image = Image.fromarray(np.uint8(np.round(picture * 255)))
    image = image.convert("L").resize(_SIZE, Image.Resampling.BICUBIC)
    gray = 0.55 * np.asarray(image, "float32")[..., None] + 0.45 * 255
    # Most patches show background and get the same small share, which would
    # color the whole picture: 0 is the median, 1 the largest.
    above = np.maximum(weights - np.median(weights), 0)
    above = above / max(above.max(), 1e-9)
    strength = Image.fromarray(above.astype("float32"))
    strength = np.asarray(strength.resize(_SIZE, Image.Resampling.BILINEAR))
    share = _STRONGEST * strength[..., None]
    mixed = gray * (1 - share) + _ORANGE * share
    return Image.fromarray(np.uint8(np.round(mixed)))
