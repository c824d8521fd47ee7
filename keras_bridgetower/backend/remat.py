"""Activations that are computed again instead of kept."""

import contextlib
import threading

import keras

from keras_bridgetower.backend import keras_patches

_RUNNING = threading.local()


def remat(layer, function, *args):
    """Run a function, and keep nothing of it for the backward pass but `args`.

    The backward pass runs it once more, with the same dropout masks: the
    states of the layer's seed generators are read outside, count from there
    inside, in a scope of the thread that runs it, and are advanced once
    afterwards. Keras' own `keras.remat` would draw new masks, or leak a tracer
    on JAX.

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
    states = _seed_states(layer)
    seeds = [state.value * 1 for state in states]
    draws, absent = [], []

    def run(*args):
        with _Replay(states, seeds) as replay:
            outputs = function(*args)
        draws.append(replay.draws)
        absent.append(keras.tree.map_structure(_is_none, outputs))
        # What is not asked for, TensorFlow would refuse.
        return [x for x in keras.tree.flatten(outputs) if not _is_none(x)]

    tensors = iter(keras.remat(run)(*args))
    outputs = keras.tree.map_structure(
        lambda none: None if none else next(tensors), absent[0]
    )
    for state, seed in zip(states, seeds, strict=True):
        state.assign(_after(seed, draws[0][id(state)]))
    return outputs


def _seed_states(layer):
    """The variables of all seed generators of a layer and those in it."""
    others = (*layer.weights, *layer.metrics_variables)
    others = {id(v) for v in others}
    return [v for v in layer.variables if id(v) not in others]


class _Replay(keras.StatelessScope):
    """A scope in which seed generators count from `seeds`, to no effect.

    Everything else is read and assigned as outside of it.
    """

    def __init__(self, states, seeds):
        mapping = zip(states, seeds, strict=True)
        super().__init__(mapping, initialize_variables=False)
        self.draws = dict.fromkeys(map(id, states), 0)

    def get_current_value(self, variable):
        value = super().get_current_value(variable)
        if value is None and self.original_scope is not None:
            value = self.original_scope.get_current_value(variable)
        return value

    def add_update(self, update):
        variable, value = update
        if id(variable) in self.draws:
            self.draws[id(variable)] += 1
            super().add_update(update)
        elif self.original_scope is not None:
            self.original_scope.add_update(update)
        else:
            self.__exit__()
            try:
                variable.assign(value)
            finally:
                self.__enter__()


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
    keras_patches.check_training_of()
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
