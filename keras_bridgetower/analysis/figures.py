"""Plot scores, head diversity and attention with matplotlib."""

import functools
import io

import numpy as np

from keras_bridgetower.checks import load_extra

_INK, _ACCENT = "#444444", "#2a6f97"
# Color of attention, RGB.
_HEAT = (0.9, 0.35, 0.0)
# Titles of the panels, as in the paper.
PANELS = {
    "image_self": "visual self-attention",
    "text_self": "textual self-attention",
    "image_cross": "visual cross-attention",
    "text_cross": "textual cross-attention",
}


def _new_figure(*args, **kwargs):
    """Create a matplotlib figure that notebooks can show."""
    # Not by pyplot, which needs a display and keeps figures until closed.
    made = load_extra("matplotlib.figure", "viz").Figure
    figure = made(*args, layout="constrained", **kwargs)
    # Notebooks show only pyplot figures and objects with this method.
    figure._repr_png_ = functools.partial(_repr_png_, figure)
    return figure


def _repr_png_(figure):
    """Return the figure as a PNG file, for notebooks."""
    file = io.BytesIO()
    figure.savefig(file, format="png")
    return file.getvalue()


def scores(by_name, title, label):
    """Plot scores of several seeds, one line for each variant.

    Args:
        by_name: dict from a variant's name to a list of its scores.
        title: str, title of the figure.
        label: str, label of the score axis.

    Returns:
        A matplotlib `Figure`: a dot for each seed, a bar at the mean.

    Example:

    ```python
    figure = scores({"a": [80.1, 81.0], "b": [79.0]}, "Bridges", "score, %")
    figure.savefig("scores.png")
    ```
    """
    figure = _new_figure(figsize=(7, 1.2 + 0.32 * len(by_name)))
    axes = figure.subplots()
    for row, values in enumerate(by_name.values()):
        axes.plot(values, [row] * len(values), "o", color=_ACCENT, alpha=0.6)
        axes.plot(np.mean(values), row, "|", color=_INK, ms=16, mew=2)
    axes.set_yticks(range(len(by_name)), by_name)
    axes.invert_yaxis()
    axes.grid(axis="x", alpha=0.3)
    axes.spines[["top", "right"]].set_visible(False)
    axes.set_xlabel(label)
    axes.set_title(title)
    return figure


def head_diversity(found):
    """Plot the paper's figure of head diversity, four panels per model.

    Args:
        found: dict from a model's name to its `HeadDiversity`, such as
            METER's and BridgeTower's.

    Returns:
        A matplotlib `Figure` with a row of panels for each model. A panel
        shows mean and standard deviation over the samples for each layer.
        Panels in one column have the same scale.

    Example:

    ```python
    mean = {name: np.array([1.0, 2.0]) for name in PANELS}
    found = HeadDiversity(mean, mean, samples=3)
    head_diversity({"METER": found, "BridgeTower": found}).savefig("kl.png")
    ```

    Source: BridgeTower (AAAI 2023), KL divergence between attention heads.
    """
    figure = _new_figure(figsize=(11, 2.6 * len(found) + 0.4))
    grid = figure.subplots(len(found), len(PANELS), sharey="col", squeeze=False)
    for row, (model, values) in zip(grid, found.items(), strict=True):
        for axes, (kind, title) in zip(row, PANELS.items(), strict=True):
            mean, spread = values.mean[kind], values.spread[kind]
            layers = np.arange(1, len(mean) + 1)
            low = np.maximum(mean - spread, 0)
            axes.fill_between(
                layers, low, mean + spread, color=_ACCENT, alpha=0.2, lw=0
            )
            axes.plot(layers, mean, "o-", color=_ACCENT)
            axes.set_xticks(layers)
            axes.grid(alpha=0.3)
            axes.spines[["top", "right"]].set_visible(False)
            axes.set_title(f"{model}: {title}", fontsize=9)
            axes.set_xlabel("cross-modal layer")
        row[0].set_ylabel("KL between heads, nats")
    return figure


def attention(seen, top_k=5):
    """Plot a picture, its attention maps, and the words of most weight.

    Args:
        seen: `AttentionMap`.
        top_k: int, number of words.

    Returns:
        A matplotlib `Figure`. Each picture has a row: the picture itself, the
        map of the whole text, and the map of the word with the largest
        weight. A patch without weight is unchanged, and the largest weight is
        the darkest orange. The color bar shows the share of a patch in its
        map. A bar chart beside them shows the word weights.

    Example:

    ```python
    seen = attention_map(vqa, photo, "what color is the shape?")
    attention(seen).savefig("seen.png")
    ```
    """
    # With as many digits as distinct labels need.
    percent = load_extra("matplotlib.ticker", "viz").PercentFormatter
    best = np.argsort(-seen.word_weights, kind="stable")[:top_k]
    overlays = {
        "where the text looks": seen.whole,
        f"where “{seen.words[best[0]]}” looks": seen.word_maps[best[0]],
    }
    count = len(seen.pictures)
    figure = _new_figure(figsize=(11, 3.1 * count + 0.4))
    maps, words = figure.subfigures(1, 2, width_ratios=(3.4, 1))
    grid = maps.subplots(count, 1 + len(overlays), squeeze=False)
    largest = max(weights.max() for weights in overlays.values())
    for row, picture in zip(grid, range(count), strict=True):
        row[0].imshow(seen.pictures[picture])
        for axes, weights in zip(row[1:], overlays.values(), strict=True):
            heat = _over(axes, seen.pictures[picture], weights[picture])
            heat.set_clim(0, largest)
        for axes in row:
            axes.set_axis_off()
    for axes, name in zip(grid[0], ("the picture", *overlays), strict=True):
        axes.set_title(name, fontsize=11)
    bar = maps.colorbar(heat, ax=grid, shrink=0.8, pad=0.02)
    bar.ax.yaxis.set_major_formatter(percent(1))
    bar.set_label("share of a patch")
    bars = words.subplots()
    bars.barh(range(len(best)), seen.word_weights[best], color=_ACCENT)
    bars.set_yticks(range(len(best)), [seen.words[i] for i in best])
    bars.invert_yaxis()
    bars.xaxis.set_major_formatter(percent(1))
    bars.spines[["top", "right"]].set_visible(False)
    bars.set_title("share of each word", fontsize=11)
    figure.suptitle(seen.title, fontsize=12)
    return figure


def _over(axes, picture, weights):
    """Plot weights over a pale gray picture, which shows through."""
    from matplotlib.colors import LinearSegmentedColormap

    side = picture.shape[0]
    gray = 1 - 0.5 * (1 - picture.mean(-1))
    axes.imshow(gray, cmap="gray", vmin=0, vmax=1)
    return axes.imshow(
        weights,
        # From transparent to an orange that hides no edge.
        cmap=LinearSegmentedColormap.from_list(
            "", [(*_HEAT, 0.0), (*_HEAT, 0.8)]
        ),
        interpolation="bilinear",
        extent=(-0.5, side - 0.5, side - 0.5, -0.5),
    )
