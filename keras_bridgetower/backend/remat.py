"""Recomputes activations in the backward pass to save memory."""

import contextvars
import types

import keras

from keras_bridgetower.backend.keras_private.layers import training_argument

# Layers that run inside `remat`.
_RUNNING = contextvars.ContextVar("running", default=())


def remat(layer, function, *args):
    """Run a function and keep only `args` for the backward pass.

    The backward pass runs the function again with the same dropout masks: both
    runs start from the same states of the layer's seed generators, which
    advance once afterwards. With `keras.remat` alone the second run would draw
    new masks, or leak a tracer on JAX.

    Args:
        layer: the layer that `function` calls.
        function: callable of float tensors that returns tensors, or a nested
            structure of tensors and None.
        *args: float tensors.

    Returns:
        The outputs of `function`.

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
        absent.append(keras.tree.map_structure(lambda x: x is None, outputs))
        # TensorFlow rejects None as an output.
        return [x for x in keras.tree.flatten(outputs) if x is not None]

    tensors = iter(keras.remat(run)(*args))
    outputs = keras.tree.map_structure(
        lambda none: None if none else next(tensors), absent[0]
    )
    for state, seed in zip(states, seeds, strict=True):
        # The counter of a seed generator counts its draws.
        count = [0, draws[0][id(state)]]
        state.assign(seed + keras.ops.cast(count, seed.dtype))
    return outputs


def _seed_states(layer):
    """Return the states of all seed generators in a layer."""
    others = {id(v) for v in (*layer.weights, *layer.metrics_variables)}
    return [v for v in layer.variables if id(v) not in others]


class _Replay(keras.StatelessScope):
    """Scope in which seed generators start from `seeds`.

    Their states outside do not change. All other variables are read and
    assigned as without a scope.
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


def checkpoint(layer):
    """Let a layer recompute its activations in the backward pass.

    Outputs and gradients do not change, nor does inference. Training needs
    less memory and more time.

    Args:
        layer: a layer whose outputs are tensors. The `call` of this object is
            replaced, not that of its class.

    Raises:
        RuntimeError: `fit` has already replaced it, to split the weights.
    """
    replaced = vars(layer).get("call")
    if getattr(replaced, "checkpoints", False):
        return
    # A method is one that `choose_attention` has set.
    if not isinstance(replaced, types.MethodType | None):
        raise RuntimeError(
            "`checkpoint_activations` must be called before the first `fit`."
        )
    call = replaced.__func__ if replaced else type(layer).call

    def checkpointed(*args, **kwargs):
        training = training_argument(layer)
        leaves = keras.tree.flatten((args, kwargs))
        symbolic = any(isinstance(x, keras.KerasTensor) for x in leaves)
        if not training or symbolic or is_running(layer):
            return call(layer, *args, **kwargs)
        # Only float tensors have gradients; pass the others unchanged.
        floats = [i for i, x in enumerate(leaves) if _is_float(x)]

        def run(*tensors):
            filled = list(leaves)
            for i, x in zip(floats, tensors, strict=True):
                filled[i] = x
            again = keras.tree.pack_sequence_as((args, kwargs), filled)
            token = _RUNNING.set((*_RUNNING.get(), layer))
            try:
                # `layer(...)`, not `call`: the backward pass runs outside of
                # Keras' call context.
                return layer(*again[0], **{**again[1], "training": training})
            finally:
                _RUNNING.reset(token)

        return remat(layer, run, *(leaves[i] for i in floats))

    checkpointed.checkpoints = True
    layer.call = checkpointed


def is_running(layer):
    """Return True inside of a layer that `checkpoint` runs."""
    return layer in _RUNNING.get()


def _is_float(x):
    return keras.ops.is_tensor(x) and keras.backend.is_float_dtype(
        keras.backend.standardize_dtype(x.dtype)
    )
