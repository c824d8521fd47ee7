"""Builds models on variables without a value, and finds those that lost it."""

import contextlib
import functools
import math

import keras
import numpy as np

from keras_bridgetower.backend.keras_private import is_known
from keras_bridgetower.backend.keras_private.layers import layers_in


@contextlib.contextmanager
def temporary_values(variables, values):
    """Set variables to other values inside the `with` block.

    An assignment would divide the values among devices, so this makes none.

    Args:
        variables: list of variables.
        values: list of arrays.
    """
    before = [v._value for v in variables]
    set_values(variables, values)
    try:
        yield
    finally:
        set_values(variables, before)


def set_values(variables, values):
    """Let variables read other tensors from now on, without an assignment."""
    for variable, value in zip(variables, values, strict=True):
        variable._value = value


def with_value(variable, value):
    """Return a variable of PyTorch with the name of another, and a tensor.

    Assignments change the tensor, whose memory may be shared. Its attribute
    `stands_for` is the other variable.

    Args:
        variable: the other variable.
        value: tensor, of any shape.
    """
    import torch

    made = keras.Variable(value, dtype=variable.dtype, name=variable.name)
    made._path = variable.path
    made._value = torch.nn.Parameter(value)
    made.stands_for = variable
    made.constraint = variable.constraint
    return made


def has_value(variable):
    """Return False for a variable whose value JAX's trainer has taken.

    Reading such a variable would give its initial value.
    """
    return variable._value is not None


@contextlib.contextmanager
def shapes_only():
    """Create variables of this thread without a value in the `with` block.

    They have a shape, to count those of a model of any size.

    A `keras.StatelessScope` leaves new variables without a value and adds
    them to a list of the thread, which Keras initializes after the next
    scope. Inside the block Keras uses another list.

    Yields:
        `(scope, variables)`: the `keras.StatelessScope`, and the list of new
        variables.
    """
    scope = _Scope(initialize_variables=False)
    from keras.src.backend.common import global_state

    before = global_state.get_global_attribute("uninitialized_variables")
    variables = []
    global_state.set_global_attribute("uninitialized_variables", variables)
    try:
        with scope:
            yield scope, variables
    finally:
        global_state.set_global_attribute("uninitialized_variables", before)


class _Scope(keras.StatelessScope):
    """Scope that records the variables that were assigned in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.assigned = {}

    def add_update(self, update):
        variable, value = update
        if isinstance(value, keras.Variable):
            # TensorFlow passes a variable, whose value could change later.
            value = value.value
        super().add_update((variable, value))
        self.assigned[id(variable)] = variable


def without_initialization(make, active=True, room=None):
    """Build a layer or model whose weights are uninitialized.

    All weights must be set afterwards. For a large model, drawing random
    weights or even writing zeros takes longer than reading a file. Models
    that other threads build are not affected.

    Keras has no option for it. Variables are created without values, get the
    cheapest initializer, and are then initialized. Each variable keeps its own
    initializer on an unknown Keras, and if a layer creates a variable that
    needs its value at once.

    Args:
        make: callable that returns a new layer or model.
        active: bool; if False, the weights are initialized as usual.
        room: `(count, file)`, the maximum number of weights and the name of
            the file that they come from; or None. Used only if `active`.

    Returns:
        The layer or model.

    Raises:
        ValueError: it has more weights; no memory was allocated for them.

    Example:

    ```python
    def make():
        layer = keras.layers.Dense(1000)
        layer.build((None, 1000))
        return layer

    layer = without_initialization(make)
    layer.set_weights([np.ones((1000, 1000)), np.zeros(1000)])
    ```
    """
    if not (active and is_known()):
        return make()
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    if in_stateless_scope():
        return make()  # The outer scope decides about all variables.
    try:
        with shapes_only() as (scope, variables):
            model = make()
    except ValueError:
        # A variable was created from an array. Other errors are raised again.
        _check_room(variables, room)
        return make()
    _check_room(variables, room)
    initializer = _cheapest_initializer()
    for variable in variables:
        # Seeds and ids are integers and keep their own initializer.
        if keras.backend.is_float_dtype(variable.dtype):
            variable._initializer = initializer
        variable._deferred_initialize()
    for key, variable in scope.assigned.items():
        variable.assign(scope.state_mapping[key])
    if keras.config.backend() == "torch":
        # On PyTorch, Keras lists the parameters of a layer when it is built;
        # here they had no value then. Models list theirs on demand.
        for layer in (model, *layers_in(model)):
            if layer.built and not isinstance(layer, keras.Model):
                layer._track_variables()
    return model


def _check_room(variables, room):
    count = sum(math.prod(variable.shape) for variable in variables)
    if room is not None and count > room[0]:
        raise ValueError(
            f"It describes {count:,} weights, and {room[1]} has room for "
            f"at most {room[0]:,}."
        )


def _cheapest_initializer():
    """Return the fastest initializer of float weights."""
    if keras.distribution.distribution() is not None:
        # Keras divides the values of its own initializers among devices.
        return keras.initializers.Zeros()
    if keras.config.backend() == "torch":
        # It writes into the memory of a weight, so weights share none.
        return keras.ops.empty

    # On TensorFlow and JAX `empty` writes zeros. They never write into a
    # tensor later, so all weights of one shape can share one.
    @functools.cache
    def zeros(shape, dtype):
        # By NumPy, because JAX would compile a program for each shape.
        return keras.ops.convert_to_tensor(np.zeros(shape, dtype))

    return zeros
