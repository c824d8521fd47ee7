"""Run alone: a task is trained on raw streams of records.

KERAS_BACKEND=torch python tests/stream_devices_run.py KINDS FOLDER OUT.npz

What the weights and logs are after training on one device ("none") and on
several is saved under the name of the kind.
"""

import sys

import keras
import numpy as np
from builders import ANSWERS
from builders import SIDE
from builders import array
from builders import preprocessor
from builders import randomise
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream

BATCH = 4


def stream(folder, remainder):
    """Raw batches, some of which lack rows: one sample is damaged."""
    return Stream(
        open_records(folder, "train"),
        BATCH,
        transform("blip", SIDE),
        order=Sequential(),
        remainder=remainder,
        max_bad_share=1.0,
    )


def trained(kind, folder):
    strategy = kbt.distribute(kind)
    keras.utils.set_random_seed(0)
    with strategy.scope():
        task = kbt.BridgeTowerVQA(shallow(), preprocessor(), ANSWERS)
        jit = keras.config.backend() == "jax"
        task.compile(keras.optimizers.SGD(0.05), jit_compile=jit)
    randomise(task)
    data = strategy.dataset(stream(folder, "drop").dataset(epochs=1))
    history = task.fit(data, verbose=0).history
    found = {f"fit/{k}": v for k, v in history.items()}
    found |= {w.path: array(w) for w in task.trainable_weights}
    tested = strategy.batches(stream(folder, "pad"), epochs=1, training=False)
    logs = task.evaluate(tested, verbose=0, return_dict=True)
    whole = stream(folder, "pad").dataset(epochs=1)
    predicted = task.predict(strategy.dataset(whole, training=False), verbose=0)
    found |= {f"test/{k}": v for k, v in logs.items()}
    return strategy, found | {"test/predictions": predicted}


def main(kinds, folder, destination):
    made = {}
    for kind in kinds.split(","):
        strategy, found = trained(kind, folder)
        made |= {f"{kind}/{k}": np.array(v) for k, v in found.items()}
    np.savez(destination.format(strategy.index), **made)


if __name__ == "__main__":
    if keras.config.backend() == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    main(*sys.argv[1:])
