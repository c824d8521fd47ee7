"""Checks what two replicas of unequal size see of each other's rows."""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.pair_objectives import NextSample
from keras_bridgetower.objectives.pair_objectives import TakeSamples

SLOTS, WORDS = 3, 5


def pieces(rank):
    """Return what one of two replicas sees, and gradients."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(5, 2)).astype("float32")
    logits = rng.normal(size=(len(x), SLOTS, WORDS)).astype("float32")
    labels = rng.integers(0, WORDS, (len(x), SLOTS)).astype("int32")
    labels[3:, 1:] = -100
    own = slice(0, 3) if rank == 0 else slice(3, 5)

    rows, offset = backend_ops.all_gather(ops.convert_to_tensor(x[own]))
    ranking = pair_objectives.make_objective("ranking")
    texts, _ = ranking.draw(0, np.arange(len(x)))
    (taken,) = backend_ops.gradients(
        lambda tensors: ops.sum(TakeSamples()(tensors[0], texts[own])), [x[own]]
    )
    return {
        "next": ops.convert_to_numpy(NextSample()(x[own])),
        "hard": ops.convert_to_numpy(hard(x, own)),
        "ranked": ops.convert_to_numpy(ranked(ranking, x[own], texts[own])),
        "x": x,
        "rows": ops.convert_to_numpy(rows),
        "offset": np.array(int(offset)),
        "taken": taken,
        "sum": ops.convert_to_numpy(
            backend_ops.global_sum(ops.ones(()) + rank)
        ),
        "logits": logits,
        "labels": labels,
        # Called as a loss, it would be divided by replicas on some engines.
        "mlm": ops.convert_to_numpy(
            MaskedLMLoss().call(labels[own], ops.convert_to_tensor(logits[own]))
        ),
    }


def ranked(ranking, x, false_texts):
    """Scores of texts for images, both of them `x`: products."""
    states = [ops.convert_to_tensor(x)[:, None]]
    drawn = {
        "padding_mask": ops.convert_to_tensor(x),
        "false_texts": ops.convert_to_tensor(false_texts),
    }
    found, _ = ranking.logits(
        lambda text, image, mask: (
            2 * (ops.sum(text[0][:, 0] * image[0][:, 0], -1),)
        ),
        {"rank": lambda scores: scores},
        *(states, states, drawn),
    )
    return found["rank"]


def hard(x, own):
    """Texts and images of hard negatives, both of them `x`, side by side."""
    objective = pair_objectives.make_objective("hard_negatives")
    *drawn, _ = objective.draw(0, np.arange(len(x), dtype="int32"))
    features = {
        name: ops.convert_to_tensor(values[own])
        for name, values in zip(objective.drawn, drawn, strict=True)
    }
    rows = ops.convert_to_tensor(x[own])
    states = [rows[:, None]]
    pairs, _ = objective.logits(
        lambda text, image, mask: (
            2 * (ops.concatenate([text[0][:, 0], image[0][:, 0]], axis=-1),)
        ),
        {"itm": lambda pairs: pairs},
        *(states, states, {"padding_mask": rows, **features}),
        (rows, 2 * rows, ops.ones(())),
    )
    return pairs["itm"]


def seen(strategy):
    """Return what the replicas of this process see, by their number."""
    if keras.config.backend() == "torch":
        return {strategy.index: pieces(strategy.index)}
    import tensorflow as tf

    found = {}

    def replica():
        context = tf.distribute.get_replica_context()
        index = int(context.replica_id_in_sync_group)
        found[index] = pieces(index)

    strategy.engine.run(replica)
    return found
