"""Dtypes of weights and layers: what can be trained in them, and be saved."""

import warnings

import keras
import ml_dtypes
import numpy as np

from keras_bridgetower.backend import keras_patches

_HALF = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
# Values of optimizers that weigh a running mean, and are below 1.
_DECAYS = ("beta_1", "beta_2", "rho", "momentum")


def check_training(variables, optimizer):
    """Refuse to train weights that would stand still or become NaN.

    In half precision a weight has 8 bits (bfloat16) or 11, so an update below
    half of the last one is lost: with the rates of fine-tuning most are. Of
    that a warning tells, as some may be meant to.

    Args:
        variables: list of trainable variables.
        optimizer: a Keras optimizer.

    Raises:
        ValueError: values of the optimizer that the weights' dtype rounds to
            1 or 0, so that no update is right.
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
        # Half of the last bit, of a weight just below a power of two.
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
            # Of who called `fit`.
            stacklevel=8,
        )


def _lost(config, rounded):
    """What becomes of an optimizer's values in a dtype, in words."""
    epsilon = config.get("epsilon")
    if epsilon and rounded(epsilon) == 0:
        return f"epsilon={epsilon} is 0, and weights would become NaN"
    for name in _DECAYS:
        value = config.get(name)
        if value and value < 1 and rounded(value) == 1:
            return f"{name}={value} is 1, and no weight would ever move"
    return None


def changed_policies(model, usual):
    """Dtype policies of single layers that are not the usual one.

    Args:
        model: a built model.
        usual: `keras.DTypePolicy`, that it was built with.

    Returns:
        dict from the number and class of a layer to its policy, as Keras
        writes it. Paths of layers may be others when they are loaded.

    Raises:
        ValueError: quantized layers, which a configuration does not describe.
    """
    check_not_quantized(model)
    return {
        place: keras.dtype_policies.serialize(layer.dtype_policy)
        for place, layer in _numbered_layers(model)
        if layer.dtype_policy.name != usual.name
    }


def check_not_quantized(model):
    """Refuse quantized layers, whose weights are scaled integers."""
    for _, layer in _numbered_layers(model):
        if layer.quantization_mode is not None:
            raise ValueError(
                "A quantized model cannot be saved or copied. Save it before "
                "`quantize`, and quantize what was loaded; or keep its "
                "weights by `save_weights`, for a model that was quantized "
                f"alike. Received: {layer.path} quantized to "
                f"{layer.quantization_mode}"
            )


def build_once(optimizer, variables):
    """Make an optimizer's variables, if they are not there yet.

    Those of loss scaling, in float16, Keras would make a second time.
    """
    if not optimizer.built:
        optimizer.build(variables)


def restore_policies(model, changed):
    """Give layers the policies that `changed_policies` found.

    Args:
        model: a model as that one was built.
        changed: dict, as it returned, or None.
    """
    places = dict(_numbered_layers(model))
    for place, policy in (changed or {}).items():
        if place not in places:
            raise ValueError(
                "The layers must be those that were saved. Received: "
                f"a dtype policy for {place!r}, which is not there"
            )
        places[place].dtype_policy = keras.dtype_policies.deserialize(policy)


def check_one_policy(*models):
    """Refuse to write a preset of layers of several dtype policies."""
    for model in models:
        policies = model.get_config().get(POLICIES)
        if policies:
            raise ValueError(
                "A preset has one dtype policy for all layers. Save the model "
                'by `model.save("name.keras")`, or give all layers the same. '
                f"Received: {sorted(policies)!r:.200} with others"
            )


# In configurations, where there are such layers alone.
POLICIES = "layer_policies"


def _numbered_layers(model):
    """Layers with weights of their own, each by its number and class."""
    own = [
        layer
        for layer in keras_patches.layers_in(model)
        if layer.weights and not keras_patches.layers_in(layer)
    ]
    return [(f"{i} {type(la).__name__}", la) for i, la in enumerate(own)]
