"""Where Keras' objects are touched below their public surface.

All of it stands here and, for several devices, in
`keras_patches_distribution`. Each function was written for versions of Keras
whose source was read. On another one it takes a slower public way, or raises an
error about what it is for; nothing is changed that another thread or another
model could meet.
"""

import contextlib
import re

import keras

FROM, BEFORE = (3, 15, 1), (3, 16, 0)


def is_known():
    """Whether Keras is of a version that these patches were made for."""
    numbers = re.match(r"\d+(\.\d+)*", keras.__version__).group().split(".")
    # One before 3.16.0 is near enough to it to be unknown.
    return FROM <= (*map(int, numbers), 0, 0)[:3] < BEFORE


def check_version(feature, instead):
    """Raise unless Keras is of a version that these patches were made for.

    Args:
        feature: str, what cannot be done without.
        instead: str, what a user can do.

    Raises:
        RuntimeError: another version.
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
    """All layers in a layer, at any depth.

    Keras has no public way below a model's own `layers`. Of an unknown Keras
    all attributes are gone through, which may find layers that are held but
    not tracked, too.

    Args:
        layer: a layer or model.

    Returns:
        list of layers, each once.
    """
    if is_known():
        return list(layer._flatten_layers(include_self=False))
    return layers_held_in(layer)


def layers_held_in(layer):
    """All layers that a layer holds in its attributes, tracked or not."""
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
    """The layer that a symbolic tensor comes from, and what it was called on.

    Keras' public `layer.input` knows the first call of a layer alone.

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
    """Raise where `training_of` would."""
    check_version(
        "`checkpoint_activations`", "train without it, in more memory"
    )


def training_of(layer):
    """Inside of a layer's call: whether the model is being trained.

    Layers without an argument `training` are not told otherwise.
    """
    check_training_of()
    return layer._get_call_context().get_value("training")


def loss_means(model):
    """The means in which a compiled model logs its losses.

    Of an unknown Keras, those of its metrics that have their names.

    Args:
        model: a compiled `keras.Model`.

    Returns:
        list of `keras.metrics.Mean`.
    """
    if is_known():
        losses = model._compile_loss
        return [model._loss_tracker, *(losses.metrics if losses else ())]
    means = [m for m in model.metrics if isinstance(m, keras.metrics.Mean)]
    return [m for m in means if m.name.endswith("loss")]


def with_public_optimizers(config):
    """What a model was compiled with, as every backend can read it.

    On PyTorch Keras saves its optimizers as classes of that backend alone,
    which elsewhere fail in the first step. The public class of the same name
    makes them there again.

    Args:
        config: dict, as `keras.Model.get_compile_config` gives it.

    Returns:
        dict like it.
    """
    if isinstance(config, (list, tuple)):
        return [with_public_optimizers(value) for value in config]
    if not isinstance(config, dict):
        return config
    public = {}
    if str(config.get("module")).startswith(_OF_PYTORCH):
        public = {"module": "keras.optimizers", "registered_name": None}
    made = {k: with_public_optimizers(value) for k, value in config.items()}
    return made | public


_OF_PYTORCH = "keras.src.backend.torch.optimizers."


def optimizer_value(model, variable):
    """What a variable of a model's optimizer holds between two steps.

    On JAX it is empty then. The public way to fill it sets every variable,
    too slow for each step; of an unknown Keras it is taken all the same.

    Args:
        model: the model, while it is trained or not.
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
    """Paths of variables whose values were taken out, as JAX's trainer does.

    Read, they would show their initial values. Of an unknown Keras none are
    found.
    """
    if not is_known():
        return []
    return [v.path for v in variables if v._value is None]


@contextlib.contextmanager
def without_values():
    """A context of this thread in which new variables get no value.

    Keras' own `keras.StatelessScope` is kept for each thread, and so is the
    list of what it leaves without a value: without the patch, the next scope
    would fill all of it.

    Yields:
        `(scope, variables)`: the `keras.StatelessScope`, and the list that
        new variables are put into. Of an unknown Keras it stays empty.
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
    """A scope that remembers which variables were assigned in it."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.assigned = {}

    def add_update(self, update):
        variable, value = update
        if isinstance(value, keras.Variable):
            # TensorFlow hands it over as it is, to be read some time.
            value = value.value
        super().add_update((variable, value))
        self.assigned[id(variable)] = variable


def with_initializer(initializer, make):
    """What `make` returns, with float weights that an initializer starts.

    Keras asks the initializer of each layer, and has no switch for it. Here
    variables wait for their value, as in any `keras.StatelessScope`, and are
    given another initializer meanwhile. Of an unknown Keras, and where a layer
    makes a variable that cannot wait, they start as they are.

    Args:
        initializer: callable of a shape and a dtype.
        make: callable that returns a new layer or model.
    """
    if not is_known():
        return make()
    from keras.src.backend.common.stateless_scope import in_stateless_scope

    if in_stateless_scope():
        return make()  # All of it waits for the outer scope.
    try:
        with without_values() as (scope, variables):
            made = make()
    except ValueError:
        # A variable was made from an array, or what is wrong is so here, too.
        return make()
    for variable in variables:
        # Seeds and ids, which are no weights, start as they should.
        if keras.backend.is_float_dtype(variable.dtype):
            variable._initializer = initializer
        variable._deferred_initialize()
    for key, variable in scope.assigned.items():
        variable.assign(scope.state_mapping[key])
    if keras.config.backend() == "torch":
        # Each layer that was built lists its parameters once they have values,
        # and a model when it is asked for them.
        for layer in (made, *layers_held_in(made)):
            if layer.built and not isinstance(layer, keras.Model):
                layer._track_variables()
    return made
