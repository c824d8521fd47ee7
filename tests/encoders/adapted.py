"""Models on any encoder can be quantized, and recompute their blocks."""

import warnings

import keras
import numpy as np
from builders import array
from builders import difference
from builders import eager
from builders import raw
from builders import run

import keras_bridgetower as kbt


def check_quantized(task, x, folder):
    """Check that int8 changes outputs a little, and is saved exactly."""
    before = run(task, x)
    with warnings.catch_warnings():
        # Keras warns of layers without weights.
        warnings.simplefilter("ignore")
        task.quantize("int8")
    after = run(task, x)
    assert 0 < difference(before, after) <= 0.1 * np.abs(array(before)).max()
    task.save_to_preset(folder)
    copy = kbt.BridgeTowerVQA.from_preset(folder)
    assert difference(run(copy, x), after) == 0


def check_recomputed(make):
    """Check that a step with recomputed blocks is the step without.

    Args:
        make: function that makes a task.
    """

    def stepped(prepare):
        keras.utils.set_random_seed(0)
        task = make()
        prepare(task.backbone)
        task.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        task.fit(*raw(), epochs=1, shuffle=False, verbose=0)
        return task

    plain = stepped(lambda model: None)
    made = stepped(lambda model: model.checkpoint_activations())
    for a, b in zip(plain.weights, made.weights, strict=True):
        assert difference(a, b) <= 1e-6


def check_adapters(make, x, output, projection, adapted, folder):
    """Check that adapters change an output, and are saved.

    Args:
        make: function that makes a backbone.
        x: dict of features.
        output: str, the output that changes.
        projection: str, the end of the name of an adapted layer.
        adapted: function of the backbone that returns the layer with it.
        folder: path, where the file is written.
    """
    keras.utils.set_random_seed(0)
    model = make()
    before = run(model, x)
    model.enable_lora(2)
    paths = {w.path for w in adapted(model).trainable_weights}
    assert any(f"{projection}/lora_kernel_a" in path for path in paths)
    for weight in model.trainable_weights:
        weight.assign(array(weight) + 0.1)
    changed = run(model, x)
    assert difference(before[output], changed[output]) > 1e-3
    model.save_lora_weights(folder / "mine.lora.h5")
    keras.utils.set_random_seed(0)
    copy = make()
    copy.load_lora_weights(folder / "mine.lora.h5")
    assert difference(run(copy, x), changed) <= 1e-5


def check_frozen(task, towers):
    """Check that a step moves no weight of frozen towers."""
    for tower in towers:
        tower.trainable = False
    frozen = [w for tower in towers for w in tower.weights]
    before = [array(w) for w in frozen]
    eager(task).fit(*raw(), epochs=1, verbose=0)
    for weight, value in zip(frozen, before, strict=True):
        assert difference(weight, value) == 0
