"""One text against many pictures: whole pairs, or towers that ran before."""

import numpy as np

from turns.forward import TransformersForward
from turns.samples import features
from turns.timed import Timed


class KerasRanking(Timed):
    """The parts of `BridgeTowerRetrieval.rank`, as a search would use them.

    A turn encodes the text and runs the fusion for all pairs.

    Args:
        saved: `Saved`.
        contender: `Contender`.
        cached: bool, whether the pictures were encoded before the turns.
    """

    def __init__(self, saved, contender, cached=True):
        import keras_bridgetower as kbt
        from keras_bridgetower.tasks.ranking.compiled_parts import parts_of

        self.task = kbt.BridgeTowerRetrieval.from_preset(
            str(saved.path("checkpoint")), dtype=contender.dtype
        )
        self.parts, self.cached = parts_of(self.task), cached

    def run(self, batch, tokens):
        from keras import ops

        side = self.task.input["images"].shape[1]
        images, text = asked(batch, side, tokens)
        rows = np.arange(batch, dtype="int32")

        def encoded():
            return self.parts.image({"images": images})["states"]

        kept = encoded()

        def rank():
            logits = self.parts.pairs(
                {
                    "image": kept if self.cached else encoded(),
                    "text": self.parts.text(text)["states"],
                    "padding_mask": text["padding_mask"],
                    "image_rows": rows,
                    "text_rows": np.zeros_like(rows),
                }
            )
            return ops.convert_to_numpy(logits).astype("float32")[:, -1:]

        return rank


class TransformersRanking(TransformersForward):
    """transformers runs each pair whole, all of them in one batch."""

    def run(self, batch, tokens):
        images, text = asked(batch, self.side, tokens)
        texts = {name: np.repeat(x, batch, 0) for name, x in text.items()}
        x = super().features({"images": images, **texts})

        def rank():
            with self.torch.inference_mode():
                return self.model(**x).logits[:, 1:].float().cpu().numpy()

        return rank


def asked(batch, side, tokens):
    """Pictures, and the features of one text."""
    made = features(batch, side, tokens)
    images = made.pop("images")
    return images, {name: x[:1] for name, x in made.items()}


LIBRARIES = {
    "keras_bridgetower": KerasRanking,
    "transformers": TransformersRanking,
}
