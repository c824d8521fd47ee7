"""Checks of dtypes: training in half precision, and saving dtype policies."""

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

    On a CPU the compiler of JAX leaves the processor's units for bfloat16
    idle. TensorFlow, which Keras does not compile there, and PyTorch use them.

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
    """Refuse or warn if half-precision weights cannot be trained.

    A weight has 8 significant bits in bfloat16 and 11 in float16. An update
    smaller than half of the last bit is lost, which happens to most updates
    at the learning rates of fine-tuning. This is a warning only, because it
    may be intended.

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
            "them, so most stand still at a small learning "
            f"rate. {remedy} {received}",
            # The line that called `fit`.
            stacklevel=8,
        )


def _lost(config, rounded):
    """Says which hyperparameter of an optimizer a dtype rounds to 0 or 1.

    None if there is none.
    """
    epsilon = config.get("epsilon")
    if epsilon and rounded(epsilon) == 0:
        return f"epsilon={epsilon} is 0, and weights would become NaN"
    for name in _DECAYS:
        value = config.get(name)
        if value and value < 1 and rounded(value) == 1:
            return f"{name}={value} is 1, and no weight would ever move"
    return None


def changed_policies(model, usual):
    """Dtype policies of layers that differ from the model's usual policy.

    Args:
        model: a built model.
        usual: `keras.DTypePolicy` that the model was built with.

    Returns:
        dict from the number and class of a layer to its policy, as Keras
        serializes it. Paths are not used, because they may differ when the
        model is loaded. Of a quantized layer it is the policy from before.
    """
    policies = {
        place: float_policy(layer) for place, layer in numbered_layers(model)
    }
    return {
        place: keras.dtype_policies.serialize(policy)
        for place, policy in policies.items()
        if policy.name != usual.name
    }


def policy_of(layer):
    """The dtype policy of a layer that may have got a map of policies."""
    policy = layer.dtype_policy
    if isinstance(policy, keras.dtype_policies.DTypePolicyMap):
        return policy[layer.path]
    return policy


def float_policy(layer):
    """The dtype policy that a layer has, or had before it was quantized."""
    policy = policy_of(layer)
    if policy.quantization_mode is None:
        return policy
    # When Keras writes a map of policies, quantized ones lose their names.
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
    """Give layers the policies that `changed_policies` returned.

    Args:
        model: a model of the same structure.
        changed: what `changed_policies` returned, or None.
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
    """Refuse to save a preset of a model with several dtype policies."""
    for model in models:
        policies = model.get_config().get(POLICIES)
        if policies:
            raise ValueError(
                "A preset has one dtype policy for all layers. Save the model "
                'by `model.save("name.keras")`, or give all layers the same. '
                f"Received: {sorted(policies)!r:.200} with others"
            )


# The key of a configuration for changed policies; absent if there are none.
# It had another name while layers were numbered in another order, so that
# such a configuration is refused.
POLICIES = "policies_of_layers"


def numbered_layers(model):
    """Innermost layers that have weights, each with its number and class.

    Args:
        model: a built layer or model, which may be such a layer itself.

    Returns:
        list of `(place, layer)`, such as `("3 Dense", layer)`.
    """
    own = [
        layer
        for layer in (model, *layers_in(model))
        if layer.weights and not layers_in(layer)
    ]
    # Backends list layers in different orders, so the paths decide.
    own.sort(key=lambda la: natural(la.weights[0].path.rpartition("/")[0]))
    return [(f"{i} {type(la).__name__}", la) for i, la in enumerate(own)]


def natural(path):
    """A key that puts `dense_10` after `dense_9`."""
    parts = re.split(r"(\d+)", path)
    return [int(part) if part.isdecimal() else part for part in parts]
