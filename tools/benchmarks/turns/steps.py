"""A training step of masked language and matching, for each library."""

import numpy as np

from turns.samples import features
from turns.timed import OfTransformers
from turns.timed import Timed

RATE = 1e-5
MASKED = 5  # tokens of each text
MASK_ID = 4
OBJECTIVES = ("mlm", "itm")


def rows(batch, side, tokens):
    """A batch of both objectives: half of the pairs match.

    Returns:
        `(images, ids, masked ids, places of the masks, whether a pair
        matches)`. A pair that does not match has the next row's picture.
    """
    made = features(batch, side, tokens)
    images, ids = made["images"], made["token_ids"]
    rng = np.random.default_rng(5)
    places = np.stack([rng.permutation(tokens)[:MASKED] for _ in range(batch)])
    masked = ids.copy()
    np.put_along_axis(masked, places, MASK_ID, 1)
    match = (np.arange(batch) % 2).astype("int32")
    return images, ids, masked, places.astype("int32"), match


class KerasStep(Timed):
    """`fit`'s step of `BridgeTowerPretraining`, by `train_on_batch`.

    To fetch the loss waits for the whole step: it is one program on JAX and
    TensorFlow, and on PyTorch the optimizer's work is queued before the loss
    is read.

    Args:
        saved: `Saved`.
        contender: `Contender`.
        attention_dropout: float, or None for that of the checkpoint.
        passes: int, 2 to encode the pictures once for each objective, as the
            authors do.
        recomputed: bool, whether activations are computed again for the
            gradients, which saves memory.
    """

    def __init__(
        self,
        saved,
        contender,
        attention_dropout=None,
        passes=1,
        recomputed=False,
    ):
        import keras_bridgetower as kbt
        from turns.two_passes import TwoPasses

        given = {}
        if attention_dropout is not None:
            given["attention_dropout"] = attention_dropout
        backbone = kbt.BridgeTowerBackbone.from_preset(
            str(saved.path("checkpoint")), dtype=contender.dtype, **given
        )
        if recomputed:
            backbone.checkpoint_activations()
        cls = {1: kbt.BridgeTowerPretraining, 2: TwoPasses}[passes]
        self.task = cls(backbone, objectives=OBJECTIVES)
        self.task.compile(self.optimizer(), jit_compile=contender.compiled)

    def optimizer(self):
        """The recipes' own, which decays all weights as PyTorch's does."""
        from keras_bridgetower.training import AdamW

        return AdamW(RATE, decay=())

    def run(self, batch, tokens):
        side = self.task.input["images"].shape[1]
        images, ids, masked, places, match = rows(batch, side, tokens)
        x = {
            "images": images,
            "token_ids": ids,
            "padding_mask": np.ones_like(ids),
            "masked_token_ids": masked,
            "mask_positions": places,
            "match": match,
        }
        y = {"mlm": np.take_along_axis(ids, places, 1), "itm": match}

        def step():
            made = self.task.train_on_batch(x, y, return_dict=True)
            return np.array([[float(made["loss"])]])

        return step


class TransformersStep(OfTransformers):
    """The plain loop over two of transformers' models that share an encoder."""

    def __init__(self, saved, contender):
        import transformers

        super().__init__(saved, contender)
        matching, masked = (
            self.opened(cls).train()
            for cls in (
                transformers.BridgeTowerForImageAndTextRetrieval,
                transformers.BridgeTowerForMaskedLM,
            )
        )
        masked.bridgetower = matching.bridgetower
        weights = {id(p): p for m in (matching, masked) for p in m.parameters()}
        self.optimizer = self.torch.optim.AdamW(weights.values(), RATE)
        self.models = matching, masked

    def run(self, batch, tokens):
        images, ids, masked, places, match = rows(batch, self.side, tokens)
        pixels, truth = self.pictures(images), self.integers(match)
        other = self.torch.where(
            truth.bool()[:, None, None, None], pixels, pixels.roll(-1, 0)
        )
        labels = np.full(ids.shape, -100, "int64")
        wanted = np.take_along_axis(ids, places, 1)
        np.put_along_axis(labels, places, wanted, 1)
        texts, blanks, labels, whole = map(
            self.integers, (ids, masked, labels, np.ones_like(ids))
        )
        matching, filling = self.models

        def step():
            self.optimizer.zero_grad()
            loss = filling(
                input_ids=blanks,
                attention_mask=whole,
                pixel_values=pixels,
                labels=labels,
            ).loss
            loss = (
                loss
                + matching(
                    input_ids=texts,
                    attention_mask=whole,
                    pixel_values=other,
                    labels=truth,
                ).loss
            )
            loss.backward()
            self.optimizer.step()
            return np.array([[float(loss)]])

        return step


LIBRARIES = {
    "keras_bridgetower": KerasStep,
    "transformers": TransformersStep,
}
