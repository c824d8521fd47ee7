"""Run alone: the same training on one device and as one of two replicas.

KERAS_BACKEND=jax python tests/replicas_run.py OUT.npz RANK

Once more it trains in the wrong way, on purpose: nothing is gathered.
"""

import contextlib
import os
import sys
from unittest import mock

os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=2"

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.models.heads import ContrastiveHead
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import pack_embeddings
from keras_bridgetower.objectives.pair_objectives import NextSample
from keras_bridgetower.objectives.pair_objectives import TakeSamples

BATCH, STEPS, WIDTH, SLOTS, WORDS = 8, 2, 6, 3, 5
# Rows of each replica where they are divided unevenly.
UNEVEN = (3, 2)


class Small(keras.Model):
    """Two embeddings and a few masked tokens, from two vectors."""

    def __init__(self):
        super().__init__()
        self.head = ContrastiveHead(4, "two_way", name="head")
        self.head.build({"text": (None, WIDTH), "image": (None, WIDTH)})
        self.words = keras.layers.Dense(SLOTS * WORDS, name="words")
        self.words.build((None, WIDTH))
        self.built = True

    def call(self, x):
        logits = ops.reshape(self.words(x["text"]), (-1, SLOTS, WORDS))
        packed = pack_embeddings(self.head(x), self.head.logit_scale)
        return {"itc": packed, "mlm": logits}


def compiled(optimizer=keras.optimizers.SGD):
    model = Small()
    rng = np.random.default_rng(1)
    for weight in model.head.trainable_weights + model.words.weights:
        weight.assign(rng.normal(size=weight.shape) + (weight.shape == ()))
    model.compile(
        optimizer(0.1),
        {"itc": ContrastiveLoss("two_way"), "mlm": MaskedLMLoss()},
        jit_compile=keras.config.backend() == "jax",
    )
    return model


def data():
    """Rows with ids and masks that are divided very unequally."""
    rng = np.random.default_rng(0)
    count = BATCH * STEPS
    x = {
        name: rng.normal(size=(count, WIDTH)).astype("float32")
        for name in ("text", "image")
    }
    mlm = rng.integers(0, WORDS, (count, SLOTS)).astype("int32")
    for step in range(STEPS):
        mlm[step * BATCH + BATCH // 2 : (step + 1) * BATCH - 1] = -100
    ids = np.array([0, 1, 2, 0, 1, 3, 0, 4] * STEPS, "int32")
    return x, {"itc": ids, "mlm": mlm}


def trained(model, rows=slice(None)):
    """Losses and weights after one step for each batch."""
    x, y = keras.tree.map_structure(
        lambda a: a.reshape(STEPS, BATCH, *a.shape[1:])[:, rows], data()
    )
    x, y = keras.tree.map_structure(
        lambda a: a.reshape(-1, *a.shape[2:]), (x, y)
    )
    batch = len(y["itc"]) // STEPS
    history = model.fit(x, y, batch_size=batch, shuffle=False, verbose=0)
    made = {
        f"weight/{w.path.split('/', 1)[-1]}": ops.convert_to_numpy(w)
        for w in model.trainable_weights
    }
    return {**made, "loss": np.array(history.history["loss"])}


def pieces(rank):
    """What one of two replicas of unequal size sees, and its gradient."""
    rng = np.random.default_rng(2)
    x = rng.normal(size=(sum(UNEVEN), 2)).astype("float32")
    factors = rng.normal(size=(len(UNEVEN), *x.shape)).astype("float32")
    logits = rng.normal(size=(len(x), SLOTS, WORDS)).astype("float32")
    labels = rng.integers(0, WORDS, (len(x), SLOTS)).astype("int32")
    labels[3:, 1:] = -100
    own = slice(0, 3) if rank == 0 else slice(3, 5)

    def read(tensors):
        rows, _ = backend_ops.all_gather(tensors[0])
        return ops.sum(ops.multiply(rows, factors[rank]))

    rows, offset = backend_ops.all_gather(ops.convert_to_tensor(x[own]))
    (gradient,) = backend_ops.gradients(read, [x[own]])
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
        "factors": factors,
        "rows": ops.convert_to_numpy(rows),
        "offset": np.array(int(offset)),
        "gradient": gradient,
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
    logits, _ = ranking.logits(
        lambda text, image, mask: ops.sum(text[0][:, 0] * image[0][:, 0], -1),
        {"rank": lambda scores: scores},
        pair_objectives.Batch(states, states, drawn),
    )
    return logits


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
        lambda text, image, mask: ops.concatenate(
            [text[0][:, 0], image[0][:, 0]], axis=-1
        ),
        {"itm": lambda pairs: pairs},
        pair_objectives.Batch(
            states, states, {"padding_mask": rows, **features}
        ),
        (rows, 2 * rows, ops.ones(())),
    )
    return pairs


@contextlib.contextmanager
def two_on_tensorflow(rank):
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])

    def train():
        with strategy.scope():
            model = compiled()
        return trained(model)

    def see():
        seen = {}

        def replica():
            context = tf.distribute.get_replica_context()
            index = int(context.replica_id_in_sync_group)
            seen[index] = pieces(index)

        strategy.run(replica)
        return seen

    yield train, see


@contextlib.contextmanager
def two_on_torch(rank):
    import torch.distributed as dist

    # The launcher names a file through which the two find each other.
    dist.init_process_group(
        "gloo", init_method=os.environ["MEETING"], rank=rank, world_size=2
    )

    class Averaging(keras.optimizers.SGD):
        def apply(self, gradients, variables=None):
            for gradient in gradients:
                dist.all_reduce(gradient)
                gradient /= 2
            super().apply(gradients, variables)

    half = BATCH // 2
    rows = slice(rank * half, (rank + 1) * half)
    yield (
        lambda: trained(compiled(Averaging), rows),
        lambda: {rank: pieces(rank)},
    )
    dist.destroy_process_group()


@contextlib.contextmanager
def two_on_jax(rank):
    keras.distribution.set_distribution(keras.distribution.DataParallel())
    yield lambda: trained(compiled()), dict


TWO = {
    "tensorflow": two_on_tensorflow,
    "torch": two_on_torch,
    "jax": two_on_jax,
}


def two_devices():
    """Make two of the one CPU, before anything runs on it."""
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )


def main(destination, rank):
    two_devices()
    found = {"one": trained(compiled())}
    with TWO[keras.config.backend()](rank) as (train, see):
        found |= {"two": train(), **see()}
        with mock.patch.object(backend_ops, "all_gather", lambda x: (x, 0)):
            found["local"] = train()
    np.savez(
        destination,
        **{
            f"{k}/{n}": v
            for k, values in found.items()
            for n, v in values.items()
        },
    )


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))
