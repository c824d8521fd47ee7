"""Creates and reads variables whose value is elsewhere."""

import contextlib

import keras

from keras_bridgetower.backend.keras_private.layers import layers_held_in
from keras_bridgetower.backend.keras_private.versions import is_known


@contextlib.contextmanager
def temporary_values(variables, values):
    """A context in which variables hold other values.

    They are set without an assignment, which would divide the values among
    devices.

    Args:
        variables: list of variables.
        values: list of arrays.
    """
    before = [v._value for v in variables]
    for variable, value in zip(variables, values, strict=True):
        variable._value = value
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable._value = value


def paths_without_value(variables):
    """Paths of variables whose values JAX's trainer has taken out.

    Reading such a variable would give its initial value. For an unknown Keras
    the result is empty.
    """
    if not is_known():
        return []
    return [v.path for v in variables if v._value is None]


@contextlib.contextmanager
def without_values():
    """A context in which the new variables of this thread get no value.

    A `keras.StatelessScope` leaves new variables without a value and puts
    them on a list of the thread, which Keras initializes after the next
    scope. Here this list is replaced for the time of the context.

    Yields:
        `(scope, variables)`: the `keras.StatelessScope`, and the list to
        which new variables are added. For an unknown Keras it stays empty.
    """
    scope = _Scope(initialize_variables=False)
    if not is_known():
        with scope:
            yield scope, []
        return
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
    """A scope that records which variables were assigned in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.assigned = {}

    def add_update(self, update):
        variable, value = update
        if isinstance(value, keras.Variable):
            # TensorFlow passes the variable itself, which could change later.
            value = value.value
        super().add_update((variable, value))
        self.assigned[id(variable)] = variable


def with_initializer(initializer, make, check=lambda variables: None):
    """Build a model whose float weights all use the same initializer.

    Keras has no option for it. So the variables are made without values,
    their initializer is replaced, and then they are initialized. For an
    unknown Keras, and if a layer makes a variable that needs its value at
    once, each variable keeps its own initializer.

    Args:
        initializer: callable of a shape and a dtype.
        make: callable that returns a new layer or model.
        check: callable of the list of the new variables, before any of them
            takes memory. What it raises is raised here.

    Returns:
        What `make` returned.
    """
    if not is_known():
        return make()
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    if in_stateless_scope():
        return make()  # The outer scope decides about all variables.
    try:
        with without_values() as (scope, variables):
            made = make()
    except ValueError:
        # A variable was made from an array. Any other error is raised again.
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
        # A layer of Keras on PyTorch lists its parameters when it is built,
        # but here they had no value then. A model lists them when asked.
        for layer in (made, *layers_held_in(made)):
            if layer.built and not isinstance(layer, keras.Model):
                layer._track_variables()
    return made
