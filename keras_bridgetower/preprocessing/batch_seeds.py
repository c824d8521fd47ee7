"""Seeds of a preprocessor's random draws, one for each batch."""

import itertools
import threading

from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import shape_of


class Draws:
    """Numbers the batches that pass, and seeds the draws of each.

    A batch that brings its own number, `x["step"]`, always gets the same
    draws, on every machine and after every restart; otherwise batches are
    numbered as they come.

    Args:
        seed: int. The same seed gives the same draws.

    Call arguments:
        function: callable that takes a seed for `np.random.default_rng`,
            then arrays, and returns one array for each of `specs`.
        step: int scalar, the number of the batch, or None.
        inputs: list of arrays, or tensors in a graph.
        *specs: as `apply_numpy`.

    Returns:
        What `function` returns, or tensors of these specs in a graph.

    Raises:
        ValueError: a step that is not a scalar.

    Example:

    ```python
    draws = Draws(seed=0)
    draws(lambda seed: np.random.default_rng(seed).random(2), 7, [],
          ("float64", (2,)))
    ```
    """

    def __init__(self, seed):
        self.seed = seed
        self._count = itertools.count()
        self._lock = threading.Lock()

    def __call__(self, function, step, inputs, *specs):
        def draw(step, *arrays):
            if step < 0:
                with self._lock:
                    step = next(self._count)
            return function([self.seed, int(step)], *arrays)

        if step is not None and shape_of(step):
            raise ValueError(
                "`x['step']` must be a scalar, the number of the batch. Add "
                "it after batching. Received: step of shape "
                f"{shape_of(step)}"
            )
        # -1 stands for a batch without a number.
        step = -1 if step is None else step
        return apply_numpy(draw, [step, *inputs], *specs)
