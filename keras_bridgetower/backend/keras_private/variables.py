"""Creates variables without a value, and finds those that have lost it."""

import contextlib

import keras

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.backend.keras_private.versions import is_known


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
def without_values():
    """Create variables of this thread without a value in the `with` block.

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


def with_initializer(initializer, make, check=lambda variables: None):
    """Build a model whose float weights all use the same initializer.

    Keras has no option for it. Variables are created without values, get the
    initializer, and are then initialized. Each variable keeps its own
    initializer on an unknown Keras, and if a layer creates a variable that
    needs its value at once.

    Args:
        initializer: callable of a shape and a dtype.
        make: callable that returns a new layer or model.
        check: callable that may raise, called with the list of the new
            variables before any of them takes memory.

    Returns:
        The layer or model.
    """
    if not is_known():
        return make()
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    if in_stateless_scope():
        return make()  # The outer scope decides about all variables.
    try:
        with without_values() as (scope, variables):
            model = make()
    except ValueError:
        # A variable was created from an array. Other errors are raised again.
        check(variables)
        return make()
    check(variables)
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
