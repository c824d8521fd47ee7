"""A training step of masked language and matching, for each library."""

import numpy as np

from turns.samples import features

RATE = 1e-5
MASKED = 5  # tokens of each text
MASK_ID = 4


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


class KerasStep:
    """`fit`'s step of `BridgeTowerPretraining`, by `train_on_batch`.

    Args:
        folder: path of a `transformers` folder.
        contender: `Contender`.
    """

    def __init__(self, folder, contender):
        import keras

        import keras_bridgetower as kbt

        given = {}
        if contender.attention_dropout is not None:
            given["attention_dropout"] = contender.attention_dropout
        backbone = kbt.BridgeTowerBackbone.from_preset(
            folder, dtype=contender.dtype, **given
        )
        self.task = kbt.BridgeTowerPretraining(
            backbone, objectives=("mlm", "itm")
        )
        self.task.compile(
            keras.optimizers.AdamW(RATE), jit_compile=contender.compiled
        )

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


class TransformersStep:
    """The plain loop over two of transformers' models that share an encoder.

    Args:
        folder: path of their folder.
        contender: `Contender`.
    """

    def __init__(self, folder, contender):
        import torch
        import transformers

        self.torch, self.dtype = torch, getattr(torch, contender.dtype)
        matching, masked = (
            cls.from_pretrained(folder, dtype=self.dtype).train()
            for cls in (
                transformers.BridgeTowerForImageAndTextRetrieval,
                transformers.BridgeTowerForMaskedLM,
            )
        )
        masked.bridgetower = matching.bridgetower
        self.side = matching.config.vision_config.image_size
        weights = {id(p): p for m in (matching, masked) for p in m.parameters()}
        self.optimizer = torch.optim.AdamW(weights.values(), RATE)
        self.models = [
            torch.compile(model) if contender.compiled else model
            for model in (matching, masked)
        ]

    def run(self, batch, tokens):
        torch = self.torch
        images, ids, masked, places, match = rows(batch, self.side, tokens)
        pixels = torch.tensor(images.transpose(0, 3, 1, 2)).to(self.dtype)
        other = torch.where(
            torch.tensor(match).bool()[:, None, None, None],
            pixels,
            pixels.roll(-1, 0),
        )
        labels = np.full(ids.shape, -100, "int64")
        wanted = np.take_along_axis(ids, places, 1)
        np.put_along_axis(labels, places, wanted, 1)
        whole = torch.ones(ids.shape, dtype=torch.int64)
        texts, blanks, labels, truth = (
            torch.tensor(values.astype("int64"))
            for values in (ids, masked, labels, match)
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
