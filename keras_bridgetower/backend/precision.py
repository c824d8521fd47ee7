"""Checks training in half precision."""

import warnings

import ml_dtypes
import numpy as np

_HALF = {"bfloat16": ml_dtypes.bfloat16, "float16": np.float16}
# Names of the factors, below 1, by which optimizers decay running means.
_DECAYS = ("beta_1", "beta_2", "rho", "momentum")


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


def build_once(optimizer, variables):
    """Create an optimizer's variables, unless they exist.

    Without this check Keras would create those of loss scaling twice.
    """
    if not optimizer.built:
        optimizer.build(variables)
