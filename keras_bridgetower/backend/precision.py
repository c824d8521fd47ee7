"""Checks training in half precision, and saves dtype policies of layers."""

import re
import warnings

import keras
import ml_dtypes
import numpy as np

from keras_bridgetower.backend.keras_private.layers import layers_in

_HALF = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
# Names of the factors, below 1, by which optimizers decay running means.
_DECAYS = ("beta_1", "beta_2", "rho", "momentum")


def warn_where_slow(policy):
    """Warn if a model's dtype is slower than float32 on its device.

    On a CPU, code compiled by JAX does not use the processor's bfloat16 units.
    PyTorch uses them, and so does TensorFlow, which Keras does not compile
    there.

    Args:
        policy: a Keras dtype policy.
    """
    if keras.config.backend() != "jax" or policy.compute_dtype != "bfloat16":
        return
    import jax

    if jax.default_backend() == "cpu":
        warnings.warn(
            "On a CPU JAX computes bfloat16 more slowly than float32. "
            "KERAS_BACKEND=torch is faster in bfloat16. Received: "
            f"dtype={policy.name!r}",
            stacklevel=5,
        )


def check_training(variables, optimizer):
    """Raise or warn if half-precision weights cannot be trained.

    A weight has 8 significant bits in bfloat16 and 11 in float16. An update
    below half of the last bit is lost, as are most updates at the learning
    rates of fine-tuning. This only warns, because it may be intended.

    Args:
        variables: list of trainable variables.
        optimizer: a Keras optimizer.

    Raises:
        ValueError: a hyperparameter of the optimizer that the weights' dtype
            rounds to 1 or 0, so that every update is wrong.
    """
    for dtype, rounded in _HALF.items():
        count = sum(v.dtype == dtype for v in variables)
        if not count:
            continue
        received = (
            f"Received: {count} of {len(variables)} trainable weights of dtype "
            f"{dtype}"
        )
        remedy = (
            f'Build the task with `dtype="mixed_{dtype}"`, which computes in '
            f"{dtype} and keeps weights in float32."
        )
        # The inverse of half the last bit, for a weight just below a power
        # of two.
        smallest = round(4 / float(ml_dtypes.finfo(rounded).eps))
        inner = getattr(optimizer, "inner_optimizer", optimizer)
        lost = _lost(inner.get_config(), rounded)
        if lost:
            raise ValueError(
                f"`optimizer` must have values that {dtype} weights can be "
                f"updated with: there {lost}. {remedy} {received}"
            )
        warnings.warn(
            f"Weights of dtype {dtype} lose every update below 1/{smallest} of "
            "them, so most do not change at a small learning "
            f"rate. {remedy} {received}",
            # The line that called `fit`.
            stacklevel=8,
        )


def _lost(config, rounded):
    """Describe a hyperparameter that a dtype rounds to 0 or 1, or None."""
    epsilon = config.get("epsilon")
    if epsilon and rounded(epsilon) == 0:
        return f"epsilon={epsilon} is 0, and weights would become NaN"
    for name in _DECAYS:
        value = config.get(name)
        if value and value < 1 and rounded(value) == 1:
            return f"{name}={value} is 1, and no weight would ever change"
    return None


def changed_policies(model, usual):
    """Return the dtype policies of layers that differ from the model's.

    Args:
        model: a built model.
        usual: `keras.DTypePolicy` that the model was built with.

    Returns:
        dict from the number and class of a layer to its serialized policy.
        Paths are not used, because they may differ in the loaded model. A
        quantized layer has its policy from before quantization.
    """
    policies = {
        place: float_policy(layer) for place, layer in numbered_layers(model)
    }
    return {
        place: keras.dtype_policies.serialize(policy)
        for place, policy in policies.items()
        if policy.name != usual.name
    }


def layer_policy(layer):
    """Return the dtype policy of a layer, which may have a map of policies."""
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        return policy[layer.path]
    return policy


def float_policy(layer):
    """Return the dtype policy of a layer, or that before quantization."""
    policy = layer_policy(layer)
    if policy.quantization_mode is None:
        return policy
    # Names of quantized policies are lost when Keras saves a map of them.
    name = policy.compute_dtype
    if policy.variable_dtype != name:
        name = f"mixed_{name}"
    return keras.dtype_policies.get(name)


def build_once(optimizer, variables):
    """Create an optimizer's variables, unless they exist.

    Without this check Keras would create those of loss scaling twice.
    """
    if not optimizer.built:
        optimizer.build(variables)


def restore_policies(model, changed):
    """Set the policies that `changed_policies` returned.

    Args:
        model: a model of the same structure.
        changed: dict, as returned by `changed_policies`, or None.
    """
    places = dict(numbered_layers(model))
    for place, policy in (changed or {}).items():
        if place not in places:
            raise ValueError(
                "The layers must be those that were saved. Received: "
                f"a dtype policy for {place!r}, which is not there"
            )
        places[place].dtype_policy = keras.dtype_policies.deserialize(policy)


def check_one_policy(*models):
    """Raise if a model to save as a preset has several dtype policies."""
    for model in models:
        policies = model.get_config().get(POLICIES)
        if policies:
            raise ValueError(
                "A preset has one dtype policy for all layers. Save the model "
                'by `model.save("name.keras")`, or give all layers the same. '
                f"Received: {sorted(policies)!r:.200} with others"
            )


# Key of a configuration for changed policies, absent if there are none. The
# name changed with the order of the numbers, so older ones are rejected.
POLICIES = "policies_of_layers"


def numbered_layers(model):
    """Return the innermost layers with weights, by number and class.

    Args:
        model: a built layer or model, which may itself be innermost.

    Returns:
        list of `(place, layer)`, such as `("3 Dense", layer)`.
    """
    own = [
        layer
        for layer in (model, *layers_in(model))
        if layer.weights and not layers_in(layer)
    ]
    # Sort by path, because the order of layers differs by backend.
    own.sort(key=lambda la: natural(la.weights[0].path.rpartition("/")[0]))
    return [(f"{i} {type(la).__name__}", la) for i, la in enumerate(own)]


def natural(path):
    """Return a sort key that puts `dense_10` after `dense_9`."""
    parts = re.split(r"(\d+)", path)
    return [int(part) if part.isdecimal() else part for part in parts]
