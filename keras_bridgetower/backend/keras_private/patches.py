"""Uses private parts of Keras, only in versions whose source was checked.

Those for `fit`, for models, for updates and for several devices are in the
modules `keras_patches_*`. On an unknown version of Keras, a function uses a
slower public way, or raises an error that names the feature. No function here
changes anything that another thread or another model uses.
"""

import contextlib
import re

import keras

FROM, BEFORE = (3, 15, 1), (3, 16, 0)


def is_known():
    """Whether this version of Keras is one that the patches were made for."""
    numbers = re.match(r"\d+(\.\d+)*", keras.__version__).group().split(".")
    # Only the digits count, so a release candidate of 3.16.0 is unknown, too.
    return FROM <= (*map(int, numbers), 0, 0)[:3] < BEFORE


def check_version(feature, instead):
    """Raise if this version of Keras is not known.

    Args:
        feature: str, the feature that needs private parts of Keras.
        instead: str, what a user can do instead.

    Raises:
        RuntimeError: an unknown version.
    """
    if not is_known():
        allowed = (".".join(map(str, v)) for v in (FROM, BEFORE))
        raise RuntimeError(
            "{} reads parts of Keras that may differ in each version. Install "
            "keras>={},<{}, or {}. Received: keras=={}".format(
                feature, *allowed, instead, keras.__version__
            )
        )


def layers_in(layer):
    """All layers inside a layer, at any depth.

    Keras' public `layers` lists only the top level of a model. For an unknown
    Keras the attributes of all layers are searched, which may also find
    layers that Keras does not track.

    Args:
        layer: a layer or model.

    Returns:
        list of layers, each once.
    """
    if is_known():
        return list(layer._flatten_layers(include_self=False))
    return layers_held_in(layer)


def weights_to_train(layer):
    """The layer's own weights that are trained unless they are frozen.

    For an unknown Keras, all of its own weights.
    """
    if is_known():
        return list(layer._trainable_variables)
    inner = {id(w) for held in layers_in(layer) for w in held.weights}
    return [w for w in layer.weights if id(w) not in inner]


def layers_held_in(layer):
    """All layers in the attributes of a layer, whether tracked or not."""
    found, waiting = {id(layer): layer}, [layer]
    while waiting:
        for held in _layers_among(vars(waiting.pop()).values()):
            if id(held) not in found:
                found[id(held)] = held
                waiting.append(held)
    return list(found.values())[1:]


def _layers_among(values):
    for value in values:
        if isinstance(value, keras.layers.Layer):
            yield value
        elif isinstance(value, dict):
            yield from _layers_among(value.values())
        elif isinstance(value, (list, tuple)):
            yield from _layers_among(value)


def source_layer(tensor):
    """The layer that made a symbolic tensor, and the inputs of that call.

    Keras' public `layer.input` is that of the layer's first call only.

    Args:
        tensor: a `keras.KerasTensor`.

    Returns:
        `(layer, inputs)`, the latter a list of symbolic tensors.

    Raises:
        RuntimeError: an unknown Keras.
    """
    check_version("`image_norms='per_tap'`", "use `image_norms='shared'`")
    layer, node, _ = tensor._keras_history
    return layer, layer._inbound_nodes[node].input_tensors


def check_training_of():
    """Raise if `training_of` would raise."""
    check_version(
        "`checkpoint_activations`", "train without it, in more memory"
    )


def training_of(layer):
    """Inside a layer's call: whether the model is being trained.

    For layers whose `call` has no argument `training`.
    """
    check_training_of()
    return layer._get_call_context().get_value("training")


def loss_means(model):
    """Return the metrics that average a compiled model's losses for the logs.

    For an unknown Keras they are found by their names.

    Args:
        model: a compiled `keras.Model`.

    Returns:
        `(total, heads)`: a `keras.metrics.Mean`, and a list of them, which is
        empty with a single output and before the first batch.
    """
    if is_known():
        losses = model._compile_loss
        return model._loss_tracker, losses.metrics if losses else []
    means = [m for m in model.metrics if isinstance(m, keras.metrics.Mean)]
    total = next(m for m in means if m.name == "loss")
    return total, [m for m in means if m.name.endswith("_loss")]


def with_public_optimizers(config):
    """A compile config whose optimizers can be loaded on every backend.

    With PyTorch, Keras saves the name of an optimizer class that is for
    PyTorch only and fails in the first step elsewhere. It is replaced by the
    public class of the same name.

    Args:
        config: dict, as `keras.Model.get_compile_config` returns it.

    Returns:
        A changed copy.
    """
    if isinstance(config, (list, tuple)):
        return [with_public_optimizers(value) for value in config]
    if not isinstance(config, dict):
        return config
    public = {}
    if str(config.get("module")).startswith(_OF_PYTORCH):
        public = {"module": "keras.optimizers", "registered_name": None}
    copy = {k: with_public_optimizers(value) for k, value in config.items()}
    return copy | public


_OF_PYTORCH = "keras.src.backend.torch.optimizers."


def optimizer_value(model, variable):
    """The value of an optimizer's variable between two steps of `fit`.

    On JAX the variable itself is empty then. The public way sets all
    variables of the model, which is too slow to do in each step. For an
    unknown Keras it is used nevertheless.

    Args:
        model: the model, in training or not.
        variable: one of `model.optimizer.variables`.

    Returns:
        NumPy array.
    """
    if keras.config.backend() == "jax":
        state = getattr(model, "_jax_state", None) if is_known() else None
        if state and not model._jax_state_synced:
            pairs = zip(
                model.optimizer.variables,
                state["optimizer_variables"],
                strict=True,
            )
            variable = next(x for v, x in pairs if v is variable)
        else:
            model.jax_state_sync()
    return keras.ops.convert_to_numpy(variable)


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
