"""Pieces of HTML and pictures that show results: bars, a heat map, words."""

import base64
import html
import io
import pathlib

import numpy as np
from PIL import Image

_THUMBNAIL = (96, 96)
# Unreadable files that are named.
_NAMED = 5
_SIDE = 384
_ORANGE = np.array((255, 106, 0), "float32")
_STRONGEST = 0.78


def bars(rows):
    """Names with shares, as bars.

    Args:
        rows: list of `(name, share)`, shares in 0..1.
    """
    lines = "".join(
        f'<li><span class="kb-name">{html.escape(name)}</span>'
        f'<span class="kb-track"><span style="width:{100 * share:.1f}%">'
        f'</span></span><span class="kb-share">{percent(share)}</span></li>'
        for name, share in rows
    )
    return f'<ol class="kb-bars">{lines}</ol>'


def label(text):
    """A short title."""
    return f'<p class="kb-label">{html.escape(text)}</p>'


def answer(text, rows, told):
    """The best answer in large letters, all as bars, and what scores mean."""
    return (
        f'<p class="kb-answer">{html.escape(text)}</p>{bars(rows)}{_note(told)}'
    )


def result(name, kind, value):
    """A result of any verb: a number or a word in large letters, or bars.

    Args:
        name: str, its name in `Verb.results`.
        kind: its type there.
        value: the result.
    """
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


def filled(words, parts, told):
    """A text with the best word at each blank, and bars for each.

    Args:
        words: for each blank a list of `(word, probability)`, best first.
        parts: list of str, the text around the blanks.
        told: str, what the probabilities mean.
    """
    first, *rest = map(html.escape, parts)
    text = first
    for best, part in zip(words, rest, strict=True):
        text += f" <mark>{html.escape(best[0][0])}</mark>{part}"
    several = len(words) > 1
    made = "".join(
        (f'<p class="kb-label">Blank {number}</p>' if several else "")
        + bars(rows)
        for number, rows in enumerate(words, 1)
    )
    return f'<p class="kb-answer">{text}</p>{made}{_note(told)}'


def marked_words(shown, words, weights):
    """Words, darker the more they count.

    Args:
        shown: str, the title.
        words: list of str.
        weights: list of float, not negative.
    """
    top = max(weights) or 1.0
    marked = " ".join(
        f'<span style="--kb-share:{100 * weight / top:.0f}%">'
        f"{html.escape(word)}</span>"
        for word, weight in zip(words, weights, strict=True)
    )
    return f'{label(shown)}<p class="kb-words">{marked}</p>'


def heat_map(texts, pictures, shares, told):
    """A table of texts and pictures, each cell coloured by its share.

    Args:
        texts: list of M str.
        pictures: list of N `PIL.Image.Image`.
        shares: array `(M, N)` in 0..1.
        told: str, what the shares mean.
    """
    head = "".join(
        f'<th scope="col"><img alt="Picture {number}" src="{_inline(p)}"></th>'
        for number, p in enumerate(pictures, 1)
    )
    rows = ""
    for text, row in zip(texts, shares, strict=True):
        cells = "".join(_cell(share) for share in row)
        rows += f'<tr><th scope="row">{html.escape(text)}</th>{cells}</tr>'
    return (
        '<div class="kb-scroll" tabindex="0" role="region" '
        'aria-label="Heat map of texts and pictures"><table class="kb-table">'
        f"<thead><tr><td></td>{head}</tr></thead><tbody>{rows}</tbody></table>"
        f"</div>{_note(told)}"
    )


def found(hits, good, searched, unreadable):
    """What a search found, in words.

    Args:
        hits: list of pairs with a `Hit`.
        good: int, how many of them come before the largest drop of the score.
        searched: int, pictures that were searched.
        unreadable: list of str, names of files that are no pictures.
    """
    best = pathlib.Path(hits[0][1].path).stem if hits else "Nothing"
    left_out = ""
    if unreadable:
        some = ", ".join(unreadable[:_NAMED])
        more = ", …" if len(unreadable) > _NAMED else ""
        left_out = f" Left out, as they cannot be read: {some}{more}."
    return (
        f'<p class="kb-answer">{html.escape(best)}</p>'
        f"<p>The best of {searched:,} pictures. "
        f"{_where_good_ones_end(good, hits)} The higher a score, the better "
        "text and picture match; it is not a percentage."
        f"{html.escape(left_out)}</p>"
    )


def _where_good_ones_end(good, hits):
    if good >= len(hits):
        return "All that are shown match about equally well."
    first = "The first matches" if good == 1 else f"The first {good} match"
    return f"{first} best: then the score drops most."


def percent(share):
    """A share as a text, such as `"99.9 %"`."""
    return f"{100 * share:.1f} %"


def _note(told):
    return f'<p class="kb-note">{html.escape(told)}</p>'


def _cell(share):
    return (
        f'<td class="kb-cell" style="--kb-share:{100 * share:.0f}%">'
        f"{100 * share:.0f} %</td>"
    )


def _inline(picture):
    """A small copy of a picture as a `data:` address."""
    small = picture.copy()
    small.thumbnail(_THUMBNAIL, Image.Resampling.LANCZOS)
    file = io.BytesIO()
    small.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"


def overlay(picture, weights, side=_SIDE):
    """Draw a picture in gray, with weights over it in orange.

    Args:
        picture: float array `(S, S, 3)` in 0..1.
        weights: float array `(rows, columns)`, not negative.
        side: int, pixels of the result.

    Returns:
        `PIL.Image.Image` `(side, side)` of mode RGB.
    """
    size = (side, side)
    shown = Image.fromarray(np.uint8(np.round(picture * 255)))
    shown = shown.convert("L").resize(size, Image.Resampling.BICUBIC)
    gray = 0.55 * np.asarray(shown, "float32")[..., None] + 0.45 * 255
    strength = Image.fromarray(strengths(weights).astype("float32"))
    strength = np.asarray(strength.resize(size, Image.Resampling.BILINEAR))
    share = _STRONGEST * strength[..., None]
    mixed = gray * (1 - share) + _ORANGE * share
    return Image.fromarray(np.uint8(np.round(mixed)))


def strengths(weights):
    """Scale weights, from 0 for the median to 1 for the largest.

    Most patches show background and get the same small share, which would
    colour the whole picture.
    """
    weights = np.asarray(weights, "float64")
    typical, largest = np.median(weights), weights.max()
    if largest - typical <= 1e-9 * max(largest, 1e-30):
        return np.zeros_like(weights)
    return np.clip((weights - typical) / (largest - typical), 0, 1)
