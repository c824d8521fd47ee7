"""Lets a functional graph read a layer's weight each time that it runs.

Outside of a layer's `__call__` a graph would keep the value that a weight has
while the graph is made, as a constant.
"""

import keras


def with_weight(function, x, weight):
    """Apply a function to a tensor and a weight that some layer owns.

    Args:
        function: callable of `x` and `weight`.
        x: tensor; a symbolic one adds an operation to its graph.
        weight: `keras.Variable`.

    Returns:
        What `function` returns.
    """
    if isinstance(x, keras.KerasTensor):
        return WithWeight(function, weight)(x)
    return function(x, weight)


class WithWeight(keras.Operation):
    """The operation that `with_weight` adds to a graph.

    It is no layer, so that models keep the order of their layers and weights.
    """

    def __init__(self, function, weight):
        super().__init__()
        self.function, self.weight = function, weight

    def call(self, x):
        return self.function(x, self.weight)

    def get_config(self):
        raise NotImplementedError(
            "A functional model over a task shares weights among its parts, "
            "which its configuration cannot say. Save and copy the task, or "
            "save the weights alone by `save_weights`. "
            f"Received: a graph that reads the weight {self.weight.path}"
        )
