"""Figures; the only place that draws with matplotlib."""

import numpy as np

_INK, _ACCENT = "#444444", "#2a6f97"


def _new_figure(*args, **kwargs):
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise ImportError(
            "Figures need matplotlib: `pip install matplotlib`, or install "
            "keras-bridgetower with its extra `viz`."
        ) from error
    # Made without pyplot: no display, and nothing to close.
    return Figure(*args, layout="constrained", **kwargs)


def scores(by_name, title, label):
    """Scores by seed, one line for each variant.

    Args:
        by_name: dict from a variant's name to a list of its scores.
        title: str.
        label: str, what the scores are.

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
