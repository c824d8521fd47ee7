"""The memory of weights: none of it is filled twice when a model is loaded.

What differs by backend here: PyTorch writes into a weight's memory, so that
two weights must not share it; TensorFlow and JAX give a weight another tensor.
"""

import contextlib
import functools
import math
import mmap

import keras
import numpy as np

from keras_bridgetower.backend import keras_patches

# Bytes; what JAX asks for.
_ALIGNMENT = 64
_BLOCK = 2**26


class Blocks:
    """Memory for arrays that become weights, see `give`.

    It is taken in large blocks: the many arrays of a model would take longer
    one by one. A block is free again once all weights in it are.

    Example:

    ```python
    array = Blocks().empty((2, 3), "float32")
    ```
    """

    def __init__(self):
        self._left = np.empty(0, "uint8")

    def empty(self, shape, dtype):
        """A NumPy array of anything, aligned for JAX."""
        size = math.prod(shape) * np.dtype(dtype).itemsize
        taken = -(-size // _ALIGNMENT) * _ALIGNMENT
        if taken >= _BLOCK:
            memory = _pages(taken)
        else:
            if taken > self._left.size:
                self._left = _pages(_BLOCK)
            memory, self._left = np.split(self._left, [taken])
        return memory[:size].view(dtype).reshape(shape)


def _pages(size):
    """Zeros that take memory when touched, page by page.

    NumPy would ask for large pages, which can take four times as long where
    a virtual machine must fetch them from its host.
    """
    memory = mmap.mmap(-1, max(size, 1), access=mmap.ACCESS_COPY)
    return np.frombuffer(memory, "uint8")[:size]


def give(variable, array):
    """Set a variable to an array, which is not used any more.

    On a CPU the array's memory becomes the variable's on PyTorch and JAX,
    where the type is the same and the array comes from `Blocks`. TensorFlow
    copies it, in half a second for a base model: foreign memory behind its
    tensors is not worth that.

    Args:
        variable: variable of a layer.
        array: NumPy array of its shape.

    Example:

    ```python
    array = Blocks().empty((2, 3), "float32")
    array[:] = 1
    give(layer.kernel, array)
    ```
    """
    if keras.config.backend() == "torch":
        import torch

        array = torch.from_numpy(array)
        if array.shape == variable.value.shape:
            variable.value.data = array.to(variable.value)
            return
    variable.assign(array)
    if keras.config.backend() == "jax":
        # Or what waits for a cast to another type would pile up.
        variable.value.block_until_ready()


def without_initialization(make, active=True):
    """A new layer or model whose weights start as anything, for nothing.

    For models whose weights are all set at once afterwards: random numbers
    for a large one, and even zeros, take longer than reading its file. What
    other threads build meanwhile starts as it should.

    Args:
        make: callable that returns a new layer or model.
        active: bool; if False, its weights start as they should.

    Returns:
        What `make` returned.

    Example:

    ```python
    def make():
        layer = keras.layers.Dense(1000)
        layer.build((None, 1000))
        return layer

    layer = without_initialization(make)
    layer.set_weights([np.ones((1000, 1000)), np.zeros(1000)])
    ```
    """
    return (
        keras_patches.with_initializer(_cheapest_initializer(), make)
        if active
        else make()
    )


@contextlib.contextmanager
def shapes_only():
    """A context in which new weights have a shape and no value.

    To count the weights of a model of any size; it cannot be run. Other
    threads are not in it.

    Example:

    ```python
    with shapes_only():
        layer = keras.layers.Dense(100_000)
        layer.build((None, 100_000))
    layer.count_params()  # 10,000,100,000
    ```
    """
    with keras_patches.without_values():
        yield


def _cheapest_initializer():
    """The initializer of float weights that costs least."""
    if keras.distribution.distribution() is not None:
        # Spread over the devices as the weight will be.
        return keras.initializers.Zeros()
    # TensorFlow and JAX fill what is empty, but never write into a tensor:
    # one of each shape serves all weights of that shape.
    own = keras.config.backend() == "torch"
    return keras.ops.empty if own else _shared_zeros()


def _shared_zeros():
    @functools.cache
    def zeros(shape, dtype):
        # Of pages that nothing touches: JAX would compile a program for each
        # shape.
        size = math.prod(shape) * np.dtype(dtype).itemsize
        memory = _pages(size).view(dtype)
        return keras.ops.convert_to_tensor(memory.reshape(shape))

    return zeros


def move(new, old):
    """Give a variable the value of another, which is not used any more.

    Args:
        new: variable of a layer.
        old: variable of the same shape and type. On PyTorch, where an
            assignment copies, both have the same memory afterwards.

    Example:

    ```python
    move(new_layer.kernel, old_layer.kernel)
    ```
    """
    if keras.config.backend() == "torch":
        new.value.data = old.value.data
    else:
        new.assign(old)
