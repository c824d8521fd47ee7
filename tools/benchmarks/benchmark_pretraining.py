"""Time a pre-training step, and one that encodes each image twice.

Called by `benchmark.py --what pretraining`.
"""

import statistics
import time

import builders
import keras
import numpy as np
from keras import ops

import keras_bridgetower as kbt

OBJECTIVES = ("mlm", "itm")
# The widths of the tiny preset, whose own model is taken, and rows and tokens
# of a batch as the miniature of a recipe trains it.
TINY = dict(
    preset="bridgetower_tiny_easy_pretrain",
    hidden=64,
    layers=4,
    fused=2,
    heads=4,
    vocabulary=438,
    side=64,
    patch=8,
    batch=64,
    tokens=16,
)


class TwoPasses(kbt.BridgeTowerPretraining):
    """The same objectives with a forward pass of its own for each.

    This is how the authors run them: matching encodes the pictures that it
    pairs, whether masked language has encoded them before or not.
    """

    def outputs_of(self, inputs):
        own = ops.reshape(inputs["match"], (-1, 1, 1, 1)) == 1
        images = inputs["images"]
        paired = ops.where(own, images, ops.roll(images, -1, axis=0))
        masked = self.backbone.fuse(
            {**inputs, "token_ids": inputs["masked_token_ids"]}, ("text",)
        )
        positions = ops.expand_dims(inputs["mask_positions"], -1)
        states = ops.take_along_axis(masked["text"], positions, axis=1)
        pooled = self.backbone.fuse({**inputs, "images": paired}, ("pooled",))
        return {
            "mlm": self.heads["mlm"](states),
            "itm": self.heads["itm"](pooled["pooled"]),
        }


def backbone(size):
    """The tiny preset's own, or a random one of the widths of a peer."""
    if "preset" in size:
        return kbt.BridgeTowerBackbone.from_preset(size["preset"])
    return kbt.BridgeTowerBackbone(
        builders.clip(
            size["hidden"],
            size["layers"],
            max(1, size["hidden"] // 64),
            size["side"],
            size.get("patch", 16),
        ),
        builders.roberta(
            size["hidden"],
            size["layers"],
            size["heads"],
            size["vocabulary"],
        ),
        hidden_dim=size["hidden"],
        num_heads=size["heads"],
        num_layers=size["fused"],
    )


def run(size, repeats):
    """Print the table for one model, trained in both ways by turns.

    Args:
        size: dict of `peer`, or `TINY`.
        repeats: int, steps of each.
    """
    trained = backbone(size)
    # Texts of the authors' length; the batch leaves room for the others.
    batch_size, tokens = size.get("batch", 4), size.get("tokens", 50)
    x, y = batch(size, batch_size, tokens)
    steps = {}
    for cls in (kbt.BridgeTowerPretraining, TwoPasses):
        task = cls(trained, objectives=OBJECTIVES)
        # Without momentum: the optimizer's own work is not the question.
        task.compile(keras.optimizers.SGD(1e-4))
        task.train_on_batch(x, y)  # Traces and compiles.
        steps[task] = []
    for _ in range(repeats):
        for task, seconds in steps.items():
            started = time.perf_counter()
            task.train_on_batch(x, y)
            seconds.append(time.perf_counter() - started)
    shared, apart = map(statistics.median, steps.values())
    print(
        "| backend | width | batch | tokens | shared image tower | two passes "
        "| ratio |\n|---|---|---|---|---|---|---|\n"
        f"| {keras.config.backend()} | {size['hidden']} | {batch_size} | "
        f"{tokens} | "
        f"{shared * 1e3:.0f} ms | {apart * 1e3:.0f} ms | "
        f"{apart / shared:.2f} x |"
    )


def batch(size, batch_size, tokens):
    """Random features and labels of a batch."""
    rng = np.random.default_rng(0)
    shape, slots = (batch_size, tokens), tokens // 4
    ids = rng.integers(5, size["vocabulary"], shape).astype("int32")
    match = np.arange(batch_size, dtype="int32") % 2
    side = size["side"]
    x = {
        "images": rng.normal(size=(batch_size, side, side, 3)).astype(
            "float32"
        ),
        "token_ids": ids,
        "masked_token_ids": ids,
        "padding_mask": np.ones(shape, "int32"),
        "mask_positions": np.tile(
            np.arange(1, slots + 1, dtype="int32"), (batch_size, 1)
        ),
        "match": match,
    }
    return x, {"mlm": ids[:, 1 : slots + 1], "itm": match}
