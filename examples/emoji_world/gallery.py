"""Search among all drawings of one artist, and score the search."""

import numpy as np

from emoji_world import world

KEPT = (1, 5, 10)


class Gallery:
    """All drawings of an artist, with their looks."""

    def __init__(self, emoji, looks, artist):
        drawn = [world.drawing(one, artist) for one in emoji]
        self.numbers = np.array(
            [n for n, drawing in enumerate(drawn) if drawing is not None]
        )
        self.pictures = [world.on_white(drawn[n]) for n in self.numbers]
        self.looks = np.asarray(looks)[self.numbers]

    def recalls(self, scores, wanted, kept=KEPT):
        order = np.argsort(-scores, axis=1, kind="stable")[:, : max(kept)]
        hit = [
            np.isin(self.looks[row], list(looks))
            for row, looks in zip(order, wanted, strict=True)
        ]
        return _percent("IR", np.array(hit), kept)

    def chance(self, wanted, kept=KEPT):
        count = len(self.looks)
        misses = {k: [] for k in kept}
        for looks in wanted:
            wrong = count - np.isin(self.looks, list(looks)).sum()
            for k in kept:
                left = np.arange(count, count - k, -1)
                misses[k].append(
                    np.prod(np.maximum(wrong - np.arange(k), 0) / left)
                )
        return {
            f"IR@{k}": round(100 * (1 - float(np.mean(m))), 2)
            for k, m in misses.items()
        }


def text_recalls(scores, looks_of_texts, looks, kept=KEPT):
    """Return the share of pictures with one of their texts among the first."""
    order = np.argsort(-scores.T, axis=1, kind="stable")[:, : max(kept)]
    hit = np.asarray(looks_of_texts)[order] == np.asarray(looks)[:, None]
    return _percent("TR", hit, kept)


def _percent(name, hit, kept):
    return {
        f"{name}@{k}": round(100 * float(hit[:, :k].any(1).mean()), 2)
        for k in kept
    }
