"""Run alone: lists attributes of the frameworks that the package replaced.

KERAS_BACKEND=jax python tests/unchanged_run.py OUT.json KINDS

OUT.json maps each step to the attributes of classes and modules that differ
from those before the package was imported.
"""

import importlib
import json
import sys
import tempfile

import keras
import keras_hub
import numpy as np

LIBRARIES = ("keras", "keras_hub", "tensorflow", "jax", "torch")
PACKAGE = "keras_bridgetower"
BACKEND = keras.config.backend()
# TensorFlow traces for longer than it runs, JAX compiles.
FAST = {"run_eagerly": BACKEND == "tensorflow", "jit_compile": BACKEND == "jax"}
DESCRIPTORS = (property, staticmethod, classmethod)
# Names that Python itself sets on a class after it was made.
OF_PYTHON = {"__abstractmethods__", "_abc_impl", "__doc__", "__signature__"}


def is_of(value, roots):
    return str(getattr(value, "__module__", "")).split(".")[0] in roots


def attributes():
    """Return attributes of loaded modules and their classes by owner."""
    found = {}
    for module_name, module in list(sys.modules.items()):
        if module_name.split(".")[0] not in LIBRARIES or module is None:
            continue
        for name, value in list(vars(module).items()):
            found[module_name, name] = value
            if isinstance(value, type) and is_of(value, LIBRARIES):
                owner = f"{value.__module__}.{value.__qualname__}"
                for inner, attribute in list(vars(value).items()):
                    found[owner, inner] = attribute
    return found


def replaced(before, after):
    """List code that was replaced, removed, or added by the package.

    Flags, counters and tables are state of the process and may change.
    """
    changed = []
    for key, value in before.items():
        code = callable(value) or isinstance(value, DESCRIPTORS)
        if code and after.get(key) is not value and key[1] not in OF_PYTHON:
            changed.append(key)
    for key, value in after.items():
        added = key not in before
        if added and is_of(getattr(value, "__func__", value), (PACKAGE,)):
            changed.append(key)
    return sorted(".".join(key) for key in set(changed))


def steps(kinds):
    """Yield the name of each step after it was done."""
    kbt = importlib.import_module(PACKAGE)
    yield "import"
    import tensorflow as tf
    from builders import ANSWERS
    from builders import features
    from builders import shallow

    def rows(count):
        x = {"images": features(batch=count)["images"]}
        return tf.data.Dataset.from_tensor_slices((x, np.arange(count) % 4))

    for kind in kinds.split(","):
        strategy = kbt.distribute(kind)
        with strategy.scope():
            # The task that compiles fastest.
            task = kbt.BridgeTowerImageClassifier(shallow(), labels=ANSWERS)
            optimizer = keras.optimizers.SGD(0.1, use_ema=True)
            task.compile(optimizer, **FAST)
        even = strategy.dataset(rows(8).batch(8, drop_remainder=True))
        # The replicas cannot divide the last batch.
        uneven = strategy.dataset(rows(11).batch(8), training=False)
        # `fit` evaluates, too.
        task.fit(even, validation_data=uneven, verbose=0)
        predicted = task.predict(uneven, verbose=0)
        yield kind
    with tempfile.TemporaryDirectory() as folder:
        strategy.save_to_preset(task, f"{folder}/preset")
        task.save(f"{folder}/task.keras")
        kbt.distribute("none")
        loaded = keras.models.load_model(f"{folder}/task.keras")
        alone = loaded.predict(rows(11).batch(11), verbose=0)
        np.testing.assert_allclose(predicted, alone, atol=1e-5)
        task = type(task).from_preset(f"{folder}/preset")
        yield "save and load"
    task.enable_lora(2)
    task.backbone.checkpoint_activations()
    kbt.BridgeTowerVQA(shallow(), answers=ANSWERS).quantize("int8")
    yield "adapt and quantize"


def main(destination, kinds):
    if BACKEND == "tensorflow":
        import tensorflow as tf

        tf.config.set_logical_device_configuration(
            tf.config.list_physical_devices("CPU")[0],
            [tf.config.LogicalDeviceConfiguration()] * 2,
        )
    # Loaded, so that attributes of their lazy modules are compared, too.
    assert keras_hub.models.Backbone and keras.Model
    before, found = attributes(), {}
    for step in steps(kinds):
        now = attributes()
        found[step] = replaced(before, now)
        # Code that was loaded meanwhile must stay as it is, too.
        before = now | before
    with open(destination, "w") as file:
        json.dump(found, file, indent=1)


if __name__ == "__main__":
    main(*sys.argv[1:])
