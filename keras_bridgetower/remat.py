"""Activations that are computed again instead of kept."""

import contextlib
import threading

import keras

from keras_bridgetower import keras_patches

_RUNNING = threading.local()


def remat(layer, function, *args):
    """Run a function, and keep nothing of it for the backward pass but `args`.

    The backward pass runs it once more, with the same dropout masks: the
    layer's seed generators are read outside, give seeds that depend on the
    number of the draw alone inside, and are advanced once afterwards. Keras'
    own `keras.remat` would draw new masks, or leak a tracer on JAX.

    Args:
        layer: the layer that `function` calls, with all its sub-layers.
        function: callable of float tensors, which returns tensors, or a
            structure of tensors and None.
        *args: float tensors.

    Returns:
        What `function` returned.

    Example:

    ```python
    block = keras.layers.Dropout(0.5)
    remat(block, lambda x: block(x, training=True), keras.ops.ones((2, 3)))
    ```
    """
    generators = keras_patches.seed_generators(layer)
    seeds = [g.state.value * 1 for g in generators]
    draws, absent = [], []

    def run(*args):
        with _replayed(generators, seeds) as drawn:
            outputs = function(*args)
        draws.append(drawn)
        absent.append(keras.tree.map_structure(_is_none, outputs))
        # What is not asked for, TensorFlow would refuse.
        return [x for x in keras.tree.flatten(outputs) if not _is_none(x)]

    tensors = iter(keras.remat(run)(*args))
    outputs = keras.tree.map_structure(
        lambda none: None if none else next(tensors), absent[0]
    )
    for generator, seed, number in zip(
        generators, seeds, draws[0], strict=True
    ):
        generator.state.assign(_after(seed, number))
    return outputs


@contextlib.contextmanager
def _replayed(generators, seeds):
    """Generators that count from `seeds`, whose own state stays."""
    drawn = [0] * len(generators)

    def next_of(index):
        def draw(ordered=True):
            drawn[index] += 1
            return _after(seeds[index], drawn[index] - 1)

        return draw

    for index, generator in enumerate(generators):
        generator.next = next_of(index)
    try:
        yield drawn
    finally:
        for generator in generators:
            del generator.next


def _after(seed, draws):
    """The state of a generator some draws later."""
    return seed + keras.ops.cast([0, draws], seed.dtype)


def checkpoint(layer):
    """Make a layer compute its activations again in every backward pass.

    It gives the same outputs and gradients, in less memory and more time.
    Where nothing is trained, it runs as before.

    Args:
        layer: a layer whose outputs are tensors; it is changed in place.
    """
    call = type(layer).call

    def checkpointed(*args, **kwargs):
        training = keras_patches.training_of(layer)
        leaves = keras.tree.flatten((args, kwargs))
        symbolic = any(isinstance(x, keras.KerasTensor) for x in leaves)
        if not training or symbolic or layer in _running():
            return call(layer, *args, **kwargs)
        # Integers have no gradient and need not be kept.
        floats = [i for i, x in enumerate(leaves) if _is_float(x)]

        def run(*given):
            filled = list(leaves)
            for i, x in zip(floats, given, strict=True):
                filled[i] = x
            again = keras.tree.pack_sequence_as((args, kwargs), filled)
            with _without(layer):
                # As a call of its own: the backward pass is in none.
                return layer(*again[0], **{**again[1], "training": training})

        return remat(layer, run, *(leaves[i] for i in floats))

    layer.call = checkpointed


def _is_none(x):
    return x is None


def _is_float(x):
    return keras.ops.is_tensor(x) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(x.dtype)
    )


def _running():
    """Layers that run inside of `remat` in this thread."""
    if not hasattr(_RUNNING, "layers"):
        _RUNNING.layers = []
    return _RUNNING.layers


@contextlib.contextmanager
def _without(layer):
    _running().append(layer)
    try:
        yield
    finally:
        _running().remove(layer)
