"""Score pictures with a text by states that were computed before."""

import types

import numpy as np
from keras import ops

from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.models.merged_tokens import merge_tokens
from keras_bridgetower.tasks.inference import joined
from keras_bridgetower.tasks.ranking import ranking_parts

# Tokens to which short texts are cut: this number, or twice as many, and so on.
SHORTEST = 8


class StateScorer:
    """Scores batches of pictures with one text, whose tower runs once.

    Args:
        task: a `BridgeTowerRetrieval`.
        text: `Texts`, of one text.
        fusion: as `BridgeTowerRetrieval.state_scorer`.

    Attributes:
        width: int, tokens of the text that the fusion reads.

    Call arguments:
        states: float32 array `(pictures, layers, tokens, width)`.
        image_tokens: int, to how many tokens those of a picture are merged
            before the fusion; None for all.

    Returns:
        float32 array `(pictures,)`, as `BridgeTowerRetrieval.score`.
    """

    def __init__(self, task, text, fusion=None):
        task.new_heads.check("score_states", task.answering_heads)
        self._parts = parts = ranking_parts(task)
        self._pairs = {None: parts.pairs}
        self._fusion, self._inference = fusion, task.inference
        features = text.features(0, 1)
        mask, states = features["padding_mask"], parts.text(features)["states"]
        self.width = width = _width(task.backbone.fusion, mask)
        self._mask, self._text = mask[:, :width], states[:, :, :width]

    def __call__(self, states, image_tokens=None):
        found = ops.convert_to_numpy(self.logits(states, image_tokens))
        return match_scores(found).astype("float32")

    def logits(self, states, image_tokens=None):
        """Return a tensor `(pictures, outputs)`, the logits of the head."""
        if self._fusion is not None:
            return self._by_fusion(states, image_tokens)
        if image_tokens not in self._pairs:
            made = self._parts.merged_pairs(image_tokens)
            self._pairs[image_tokens] = made
        count = len(states)
        return self._pairs[image_tokens](
            {
                "text": ops.repeat(self._text, count, axis=0),
                "padding_mask": np.repeat(self._mask, count, axis=0),
                "image": states,
            }
        )

    def in_batches(self, states, batch_size):
        """Return the scores of states that may be on disk."""

        def features(start, stop):
            return {"states": np.asarray(states[start:stop], "float32")}

        if not len(states):
            return np.zeros(0, "float32")
        source = types.SimpleNamespace(count=len(states), features=features)
        batches = self._inference.in_batches(
            lambda batch: self.logits(**batch), [source], batch_size
        )
        return match_scores(joined(batches))

    def _by_fusion(self, states, image_tokens):
        states = np.asarray(states, "float32")
        if image_tokens is not None:
            layers = list(np.moveaxis(states, 1, 0))
            layers = merge_tokens(layers, image_tokens)
            states = np.stack([ops.convert_to_numpy(x) for x in layers], 1)
        text = ops.convert_to_numpy(self._text).astype("float32")
        inputs = {"text_states": text, "padding_mask": self._mask}
        inputs = {k: np.repeat(x, len(states), 0) for k, x in inputs.items()}
        return self._fusion({**inputs, "image_states": states})


def _width(fusion, mask):
    """Return to how many tokens a text is cut, without a change of scores."""
    width = mask.shape[1]
    # Managers without a mask see padding.
    if fusion.text_feed.reads_padding:
        return width
    tokens = max(SHORTEST, int(mask.sum()))
    return min(1 << (tokens - 1).bit_length(), width)
