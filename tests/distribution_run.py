"""Run alone: the same training on one device and on several.

KERAS_BACKEND=jax python tests/distribution_run.py KINDS OPTIMIZERS OUT.npz

A kind is one of `kbt.distribute` or `WAYS`; its results have its name.
"""

import os
import sys
import tempfile

import keras
import numpy as np
import unchanged
from builders import array
from builders import clip
from builders import roberta
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.metrics.keras_metrics import ContrastiveAccuracy
from keras_bridgetower.metrics.keras_metrics import VQAScore
from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.losses import ContrastiveLoss
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.objectives.pair_objectives import NextSample
from keras_bridgetower.objectives.pair_objectives import TakeSamples
from keras_bridgetower.objectives.pair_objectives import with_packed
from keras_bridgetower.tasks.task import BridgeTowerTask
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import WarmupPolynomial

ON_JAX = keras.config.backend() == "jax"
DEVICES = int(os.environ.get("DEVICES", "1"))
STEPS, BATCH, SIDE, TOKENS, ANSWERS = 10, 8, 16, 5, 6
# The last batch of 8 has three rows: fewer than eight devices, and odd for
# two.
TESTED = int(os.environ.get("TESTED", "19"))
WAYS = {
    "one": ("none", {}),
    "model_parallel": ("model_parallel", {"model_devices": 4}),
    "hybrid": ("fsdp", {"shard_devices": 2}),
    "bfloat16": ("fsdp", {"gradient_dtype": "bfloat16"}),
}


class Both(BridgeTowerTask):
    """Answers, and embeddings of texts and images, at once."""

    def __init__(self, backbone):
        heads = {
            "vqa": {"answers": list("abcdef"), "num_classes": ANSWERS},
            "itc": {"projection_dim": 8, "ways": "two_way"},
        }
        super().__init__(backbone, None, heads)

    def outputs_of(self, inputs):
        backbone = self.backbone
        text = {key: inputs[key] for key in backbone.text_tower.input}
        text = backbone.text_tower(text)
        image = backbone.image_tower(inputs["images"])
        mask = inputs["padding_mask"]
        fused = backbone.fusion(text, image, mask, outputs=("pooled",))
        features = contrastive_features(
            backbone.fusion, "two_way", text, image, None
        )
        return {
            "vqa": self.heads["vqa"](fused["pooled"]),
            "itc": self.heads["itc"](features),
        }

    def loss_inputs(self, y, y_pred):
        return y, with_packed(y_pred, self.heads)

    def metric_inputs(self, y, y_pred):
        return y, with_packed(y_pred)

    def default_loss(self):
        return {"vqa": VQALoss(), "itc": ContrastiveLoss("two_way")}

    def default_metrics(self):
        return {"vqa": [VQAScore()], "itc": [ContrastiveAccuracy("two_way")]}


def small():
    return kbt.BridgeTowerBackbone(
        clip(heads=4, layers=1, side=SIDE),
        roberta(heads=4, layers=1),
        hidden_dim=16,
        num_heads=4,
        num_layers=1,
        dropout=0.0,
    )


def matching():
    return kbt.BridgeTowerRetrieval(
        small(), objective="hard_negatives", projection_dim=8
    )


def answered(ids, rng):
    """Features and labels of `Both`."""
    scores = rng.uniform(size=(len(ids), ANSWERS)).astype("float32")
    return {}, {"vqa": scores, "itc": ids}


def matched(ids, rng):
    """Features and labels of hard negatives."""
    objective = pair_objectives.make_objective("hard_negatives")
    *drawn, labels = objective.draw(0, ids)
    drawn = dict(zip(objective.drawn, drawn, strict=True))
    return drawn, {"itm": labels, "itc": ids}


# Of each task its model, and how its rows are drawn.
TASKS = {
    "both": (lambda: Both(small()), answered),
    "matching": (matching, matched),
}
MODEL, DRAWN = TASKS[os.environ.get("TASK", "both")]


def built(optimizer, eager):
    """The task, with the same weights on every device and backend."""
    task = MODEL()
    rng = np.random.default_rng(3)
    for weight in sorted(task.trainable_weights, key=lambda w: w.path):
        if weight.constraint is not None:
            # Noise would break it, until an update mends it.
            continue
        noise = rng.normal(size=weight.shape, scale=0.2)
        start = array(weight)
        weight.assign(start * 0 + noise + (weight.path.endswith("gamma")))
    # A second `compile` must not reduce gradients twice.
    optimizer = optimizer()
    for _ in range(2):
        task.compile(optimizer, jit_compile=ON_JAX, run_eagerly=eager)
    return task


def features_of(rows, rng):
    mask = np.ones((rows, TOKENS), "int32")
    # Unequal texts: no replica must count its own tokens alone.
    mask[rows // 2 :, 2:] = 0
    return {
        "images": rng.normal(size=(rows, SIDE, SIDE, 3)).astype("float32"),
        "token_ids": rng.integers(5, 60, (rows, TOKENS)).astype("int32"),
        "padding_mask": mask,
    }


def dataset(rows, seed, **kwargs):
    import tensorflow as tf

    rng = np.random.default_rng(seed)
    x = features_of(rows, rng)
    ids = rng.integers(0, 5, (rows,)).astype("int32")
    drawn, y = DRAWN(ids, rng)
    rows = tf.data.Dataset.from_tensor_slices(({**x, **drawn}, y))
    return rows.batch(BATCH, **kwargs)


def clipped():
    """Clip some steps: a clipped gradient has no scale that could be wrong."""
    return keras.optimizers.SGD(0.004, global_clipnorm=15.0)


OPTIMIZERS = {
    "sgd": clipped,
    "adamw": lambda: AdamW(
        1e-3, epsilon=1e-6, global_clipnorm=1.0, use_ema=True
    ),
    # The tenth batch waits for another.
    "accumulated": lambda: keras.optimizers.SGD(
        WarmupPolynomial(0.1, 3, 1), use_ema=True, gradient_accumulation_steps=3
    ),
}


def trained(strategy, names):
    found = {}
    for name in names:
        with strategy.scope():
            # On one device TensorFlow traces for longer than it runs.
            alone = strategy.count == 1
            task = built(OPTIMIZERS[name], eager=alone and not ON_JAX)
        data = dataset(STEPS * BATCH, 0, drop_remainder=True)
        history = task.fit(strategy.dataset(data), verbose=0).history
        found |= {
            f"{name}/weight/{w.path}": whole(strategy, task, w)
            for w in task.trainable_weights
        }
        found |= {f"{name}/fit/{k}": np.array(v) for k, v in history.items()}
    tested = strategy.dataset(dataset(TESTED, 1), training=False)
    logs = task.evaluate(tested, verbose=0, return_dict=True)
    return found | {f"test/{k}": np.array(v) for k, v in logs.items()}


def whole(strategy, task, weight):
    with strategy.gathered(task):
        return np.array(array(weight))


def saved(strategy):
    """Return how a preset and a file differ from weights, and their share."""
    with strategy.scope():
        task = kbt.BridgeTowerVQA(small(), answers=["yes", "no"])
    before = [array(w) for w in task.weights]
    share = 1.0
    if ON_JAX:
        shards = [w.value.addressable_shards[0].data for w in task.weights]
        share = sum(s.nbytes for s in shards) / sum(w.nbytes for w in before)
    with tempfile.TemporaryDirectory() as folder:
        strategy.save_to_preset(task, f"{folder}/preset")
        task.save(f"{folder}/task.keras")
        kbt.distribute("none")
        alone = kbt.BridgeTowerVQA.from_preset(f"{folder}/preset")
        loaded = keras.models.load_model(f"{folder}/task.keras")
    differences = [
        np.abs(array(w) - b).max()
        for one in (alone, loaded)
        for w, b in zip(one.weights, before, strict=True)
    ]
    alone.enable_lora(2)
    alone.backbone.checkpoint_activations()
    loaded.quantize("int8")
    return {"saved": np.max(differences), "share": np.array(share)}


SLOTS, WORDS = 3, 5


def pieces(rank):
    """Return what one of two replicas of unequal size sees of the other."""
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
        "next": array(NextSample()(x[own])),
        "hard": array(hard(x, own)),
        "ranked": array(ranked(ranking, x[own], texts[own])),
        "x": x,
        "rows": array(rows),
        "offset": np.array(int(offset)),
        "taken": taken,
        "sum": array(backend_ops.global_sum(ops.ones(()) + rank)),
        "logits": logits,
        "labels": labels,
        # Called as a loss, it would be divided by replicas on some engines.
        "mlm": array(
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


def main(kinds, optimizers, destination):
    found, replaced = {}, unchanged.replaced()
    for kind in kinds.split(","):
        name, values = WAYS.get(kind, (kind, {}))
        strategy = kbt.distribute(name, **values)
        made = trained(strategy, optimizers.split(","))
        found |= {f"{kind}/{k}": v for k, v in made.items()}
        replaced += unchanged.replaced()
    if kind == "data_parallel" and not ON_JAX:
        found |= {
            f"replica {index}/{name}": value
            for index, values in seen(strategy).items()
            for name, value in values.items()
        }
    on_torch = keras.config.backend() == "torch"
    saves = strategy.index == 0 if on_torch else strategy.processes == 1
    if strategy.count > 1 and saves:
        # The last kind. Several processes save together in `test_ranks`.
        alone = kbt.distribute("none") if on_torch else strategy
        found |= {f"{kind}/{k}": v for k, v in saved(alone).items()}
        replaced += unchanged.replaced()
    found["frameworks/replaced"] = np.array(replaced, str)
    np.savez(destination.format(strategy.index), **found)


def make_devices():
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * DEVICES,
        )


if __name__ == "__main__":
    make_devices()
    main(*sys.argv[1:])
