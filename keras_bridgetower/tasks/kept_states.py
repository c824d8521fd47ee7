"""Score pictures with a text by states that were computed before."""

import numpy as np
from keras import ops

from keras_bridgetower.tasks.inference import in_batches
from keras_bridgetower.tasks.inference import joined
from keras_bridgetower.tasks.ranking import ranking_parts


class StateScorer:
    """Scores batches of pictures with one text, whose tower runs once.

    Args:
        task: a `BridgeTowerRetrieval`.
        text: `Texts`, of one text.

    Call arguments:
        states: float32 array `(pictures, layers, tokens, width)`.
        image_tokens: int, to how many tokens those of a picture are merged
            before the fusion; None for all.

    Returns:
        float32 array `(pictures,)`, the logits of "match".
    """

    def __init__(self, task, text):
        task.new_heads.check("score_states", task.answering_heads)
        self._parts = parts = ranking_parts(task)
        self._pairs = {None: parts.pairs}
        features = text.features(0, 1)
        self._text = {
            "text": parts.text(features)["states"],
            "padding_mask": ops.convert_to_tensor(features["padding_mask"]),
        }

    def __call__(self, states, image_tokens=None):
        found = ops.convert_to_numpy(self.logits(states, image_tokens))
        return found[:, -1].astype("float32")

    def logits(self, states, image_tokens=None):
        """Return a tensor `(pictures, outputs)`, whose last is "match"."""
        if image_tokens not in self._pairs:
            made = self._parts.merged_pairs(image_tokens)
            self._pairs[image_tokens] = made
        rows = np.arange(len(states), dtype="int32")
        return self._pairs[image_tokens](
            {
                **self._text,
                "image": states,
                "image_rows": rows,
                "text_rows": np.zeros_like(rows),
            }
        )


def score_states(task, states, text, batch_size):
    """Score pictures with a text by the states that the fusion reads.

    Args:
        task: a `BridgeTowerRetrieval`.
        states: array `(pictures, layers, tokens, width)`.
        text: `Texts`, of one text.
        batch_size: int, pictures per forward pass.

    Returns:
        float32 array `(pictures,)`: the logits of "match".
    """
    scorer = StateScorer(task, text)

    def run(batch):
        return scorer.logits(batch["image"])

    if not len(states):
        return np.zeros(0, "float32")
    return joined(in_batches(run, [_Kept(states)], batch_size))[:, -1]


class _Kept:
    """A source of states that were computed before, perhaps on disk."""

    def __init__(self, states):
        self._states, self.count = states, len(states)

    def features(self, start, stop):
        return {"image": np.asarray(self._states[start:stop], "float32")}
