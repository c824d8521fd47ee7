"""The look of the page: HTML and pictures of results, and the style."""

import base64
import html
import io
import pathlib

import numpy as np
from PIL import Image

_THUMBNAIL = (96, 96)
# Number of unreadable files that are named.
_NAMED = 5
_SIDE = 384
_ORANGE = np.array((255, 106, 0), "float32")
_STRONGEST = 0.78


def bars(rows):
    """Render names with shares as bars.

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
    """Render a short title."""
    return f'<p class="kb-label">{html.escape(text)}</p>'


def answer(text, rows, note):
    """Render the best answer in large letters, all as bars, and a note."""
    return (
        f'<p class="kb-answer">{html.escape(text)}</p>{bars(rows)}{_note(note)}'
    )


def result(name, kind, value):
    """Render a result of any verb, in large letters or as bars.

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
    several = len(words) > 1
    blanks = "".join(
        (f'<p class="kb-label">Blank {number}</p>' if several else "")
        + bars(rows)
        for number, rows in enumerate(words, 1)
    )
    return f'<p class="kb-answer">{text}</p>{blanks}{_note(note)}'


def marked_words(title, words, weights):
    """Render words, the darker the larger their weight.

    Args:
        title: str.
        words: list of str.
        weights: list of float, not negative.
    """
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
        f"</div>{_note(note)}"
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
    left_out = ""
    if unreadable:
        some = ", ".join(unreadable[:_NAMED])
        more = ", …" if len(unreadable) > _NAMED else ""
        left_out = f" Left out, as they cannot be read: {some}{more}."
    return (
        f'<p class="kb-answer">{html.escape(best)}</p>'
        f"<p>The best of {searched:,} pictures. "
        f"{_end_of_good(good, hits)} The higher a score, the better "
        "text and picture match; it is not a percentage."
        f"{html.escape(left_out)}</p>"
    )


def _end_of_good(good, hits):
    if good >= len(hits):
        return "All that are shown match about equally well."
    first = "The first matches" if good == 1 else f"The first {good} match"
    return f"{first} best: then the score drops most."


def percent(share):
    """Format a share, such as `"99.9 %"`."""
    return f"{100 * share:.1f} %"


def _note(text):
    return f'<p class="kb-note">{html.escape(text)}</p>'


def _inline(picture):
    """Return a thumbnail as a `data:` URL."""
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
    image = Image.fromarray(np.uint8(np.round(picture * 255)))
    image = image.convert("L").resize(size, Image.Resampling.BICUBIC)
    gray = 0.55 * np.asarray(image, "float32")[..., None] + 0.45 * 255
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


FONTS = ("system-ui", "-apple-system", "Segoe UI", "Roboto", "sans-serif")
MONOSPACE = ("ui-monospace", "Consolas", "monospace")
CSS = """
:root { --kb-heat: #f97316; }
.gradio-container { max-width: 1080px !important; margin: 0 auto; }
.kb-head h1 { font-size: 1.7rem; margin: 0.2rem 0; }
.kb-head p, .kb-intro p { margin: 0.1rem 0; }
.kb-intro h2 { font-size: 1.15rem; margin: 0.2rem 0; }
.kb-note { font-size: 0.9rem; }
.kb-note p { margin: 0.3rem 0; }
.block.kb-plain, .kb-plain .html-container { padding: 0 !important;
  margin: 0 !important; }
.kb-label { font-weight: 600; margin: 0 !important; }
.kb-examples { gap: 8px; }
.kb-examples button { flex: 1 1 220px; justify-content: flex-start;
  flex-wrap: nowrap; text-align: left; font-weight: 400; font-size: 0.95rem;
  white-space: normal; padding: 6px 10px; }
.kb-examples button img { width: 40px; height: 40px; border-radius: 4px; }
.kb-answer { font-size: 1.6rem !important; font-weight: 600;
  line-height: 1.3 !important; margin: 0 0 0.5rem !important;
  overflow-wrap: anywhere; }
.kb-answer mark { background: color-mix(in srgb, var(--kb-heat) 22%,
  transparent); color: inherit; border-radius: 4px; padding: 0 0.25em; }
ol.kb-bars { list-style: none; margin: 0 0 0.8rem !important;
  padding: 0 !important; }
ol.kb-bars li { display: flex; align-items: center; gap: 0.6rem;
  margin: 0.25rem 0; padding: 0; }
.kb-name { flex: 0 0 6.5rem; overflow-wrap: anywhere; }
.kb-track { flex: 1; height: 0.8rem; border-radius: 0.4rem; overflow: hidden;
  background: var(--border-color-primary); }
.kb-track span { display: block; height: 100%; background: var(--kb-heat); }
.kb-share { flex: 0 0 4.2rem; text-align: right;
  font-variant-numeric: tabular-nums; }
.kb-words { line-height: 2.2 !important; margin: 0.3rem 0 !important; }
.kb-words span { background: color-mix(in srgb, var(--kb-heat)
  calc(var(--kb-share) * 0.5), transparent); border-radius: 4px;
  padding: 0.15em 0.35em; }
.kb-gallery { --kb-columns: 4; }
.kb-gallery .grid-wrap { min-height: 0 !important; height: auto !important;
  max-height: none !important; }
.kb-gallery .grid-container { grid-template-columns: repeat(var(--kb-columns),
  minmax(0, 1fr)) !important; }
.kb-found { --kb-columns: 3; }
.kb-found .caption-label { left: 4px; right: 4px; bottom: 4px;
  max-width: none; padding: 1px 4px; font-size: 0.75rem; text-align: left;
  white-space: normal; }
/* A wide table scrolls inside its frame. */
.kb-result, .kb-result .html-container { display: grid;
  grid-template-columns: minmax(0, 1fr); }
.kb-scroll { overflow-x: auto; }
.kb-table, .kb-table th, .kb-table td { border: 0 !important; }
.kb-table { border-collapse: separate !important; border-spacing: 4px;
  width: auto !important; margin: 0 !important; }
.kb-table th[scope=row] { font-weight: 400; text-align: left;
  min-width: 9rem; max-width: 22rem; padding: 0 0.6rem 0 0; }
.kb-table th[scope=col] { padding: 0; }
.kb-table img { width: 64px; height: 64px; object-fit: contain;
  border-radius: 4px; margin: 0 auto !important; }
.kb-table td.kb-cell { text-align: center; min-width: 72px; height: 48px;
  padding: 0; border-radius: 6px; font-variant-numeric: tabular-nums;
  color: #1c1917;
  background: color-mix(in srgb, var(--kb-heat) var(--kb-share), #fff); }
.tab-container button.selected { color: #c2410c !important; }
.dark .tab-container button.selected { color: #fb923c !important; }
.toast-body { background: var(--background-fill-primary) !important;
  opacity: 1 !important; }
@media (max-width: 640px) {
  .gradio-container main { padding: 12px !important; }
  .kb-head h1 { font-size: 1.35rem; }
  .kb-gallery { --kb-columns: 3; }
  .kb-found { --kb-columns: 2; }
  .tab-container button { font-size: 0.82rem !important;
    padding: 0 6px !important; }
  .kb-table th[scope=row] { min-width: 6rem; font-size: 0.85rem; }
  .kb-table img { width: 44px; height: 44px; }
  .kb-table td.kb-cell { min-width: 48px; font-size: 0.85rem; }
}
"""


def theme(gradio):
    """Return the theme of the page, which loads no font from the network.

    Args:
        gradio: the module.
    """
    return gradio.themes.Soft(
        primary_hue="orange",
        secondary_hue="orange",
        neutral_hue="stone",
        font=FONTS,
        font_mono=MONOSPACE,
    ).set(
        # Its contrast with white is above 5.
        checkbox_label_background_fill_selected="*primary_700",
        checkbox_label_background_fill_selected_dark="*primary_700",
        button_primary_background_fill="*primary_700",
        button_primary_background_fill_hover="*primary_800",
        button_primary_background_fill_dark="*primary_700",
        button_primary_background_fill_hover_dark="*primary_800",
        button_secondary_background_fill_hover_dark="*neutral_600",
        input_placeholder_color="*neutral_500",
        input_placeholder_color_dark="*neutral_300",
        body_background_fill="*neutral_50",
        body_background_fill_dark="*neutral_950",
        block_title_background_fill="transparent",
        block_title_background_fill_dark="transparent",
        block_title_text_color="*body_text_color",
        block_title_text_color_dark="*body_text_color",
        block_title_padding="0",
        block_title_text_weight="600",
    )
