"""Run alone: updates of accumulated gradients, on one device and on several.

KERAS_BACKEND=jax python tests/updates_run.py KINDS OPTIMIZERS OUT.npz

A kind is one of `distribution_run.WAYS`, or `whole`: one device, on which a
batch is an update. All read the same rows for each update.
"""

import sys

import distribution_run
import keras
import numpy as np
import tensorflow as tf
from distribution_run import WAYS

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private.updates import accumulation
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.schedules import WarmupPolynomial

# Three batches make an update, and five an epoch: some epochs end within one.
UPDATES, PARTS, ROWS, BATCHES = 10, 3, 8, 5
PEAK, WARMUP, POWER = 0.1, 3, 2.0


def schedule(peak):
    return WarmupPolynomial(peak, UPDATES, WARMUP, POWER)


OPTIMIZERS = {
    "sgd": lambda **k: keras.optimizers.SGD(
        schedule(PEAK), 0.9, weight_decay=0.1, global_clipnorm=1.0, **k
    ),
    "averaged": lambda **k: keras.optimizers.SGD(
        schedule(PEAK), use_ema=True, ema_momentum=0.8, **k
    ),
    "adamw": lambda **k: AdamW(schedule(1e-3), epsilon=1e-6, **k),
    "scaled": lambda **k: keras.optimizers.LossScaleOptimizer(
        keras.optimizers.SGD(schedule(PEAK), 0.9, **k)
    ),
}


class Rates(keras.callbacks.Callback):
    """Keeps the rate of each batch, as it is before it."""

    def __init__(self):
        super().__init__()
        self.found = []

    def on_train_batch_begin(self, batch, logs=None):
        rate = self.model.optimizer.learning_rate
        self.found.append(float(keras.ops.convert_to_numpy(rate)))


def made(name, **kwargs):
    return distribution_run.built(
        lambda: OPTIMIZERS[name](**kwargs),
        lambda: kbt.BridgeTowerVQA(
            distribution_run.small(), answers=list("abcd")
        ),
    )


def trained(strategy, kind, name):
    parts = 1 if kind == "whole" else PARTS
    accumulated = {"gradient_accumulation_steps": PARTS} if parts > 1 else {}
    with strategy.scope():
        task = made(name, **accumulated)
    rng, count = np.random.default_rng(0), BATCHES * ROWS
    x = distribution_run.features_of(count, rng)
    y = rng.uniform(size=(count, 4)).astype("float32")
    data = tf.data.Dataset.from_tensor_slices((x, y))
    epochs = UPDATES * PARTS // BATCHES
    if kind == "whole":
        # The rows of all epochs, divided into updates.
        data, epochs = data.repeat(epochs), 1
    batch = ROWS * PARTS // parts
    data = strategy.dataset(data.batch(batch, drop_remainder=True))
    rates = Rates()
    task.fit(data, epochs=epochs, callbacks=[rates], verbose=0)
    found = {
        f"weight/{w.path}": distribution_run.whole(strategy, task, w)
        for w in task.trainable_weights
    }
    count = keras.ops.convert_to_numpy(task.optimizer.iterations)
    saved = accumulation(
        type(task.optimizer).from_config(task.optimizer.get_config())
    )
    return found | {
        "rates": np.array(rates.found),
        "updates": count,
        "parts": np.array(saved),
    }


def main(kinds, optimizers, destination):
    found = {}
    for kind in kinds.split(","):
        way, values = WAYS["one" if kind == "whole" else kind]
        strategy = kbt.distribute(*way, **values)
        for name in optimizers.split(","):
            one = trained(strategy, kind, name)
            found |= {f"{kind}/{name}/{k}": v for k, v in one.items()}
    np.savez(destination.format(strategy.index), **found)


if __name__ == "__main__":
    distribution_run.make_devices()
    main(*sys.argv[1:])
