"""Position resizing against PyTorch's bicubic interpolation."""

import numpy as np
import pytest
import torch

from keras_bridgetower.models.positions import resize_positions


@pytest.mark.parametrize("side, new", [(3, 5), (18, 24), (24, 14), (4, 4)])
@pytest.mark.parametrize("prefix", [0, 1, 2])
def test_grid(side, new, prefix):
    rng = np.random.default_rng(0)
    # In float32 the peer itself is off by 7e-6.
    table = rng.normal(size=(prefix + side**2, 7))
    resized = resize_positions(table, prefix + new**2)
    np.testing.assert_array_equal(resized[:prefix], table[:prefix])
    grid = torch.tensor(table[prefix:].T.reshape(1, 7, side, side))
    expected = torch.nn.functional.interpolate(
        grid, size=(new, new), mode="bicubic", align_corners=False
    )
    expected = expected.numpy().reshape(7, -1).T
    assert np.abs(resized[prefix:] - expected).max() <= 1e-12


def test_leading_axes_and_dtype_are_kept():
    table = np.random.default_rng(0).normal(size=(1, 11, 4)).astype("float32")
    resized = resize_positions(table, 2 + 16)
    assert resized.dtype == np.float32
    np.testing.assert_array_equal(resized[0], resize_positions(table[0], 18))


@pytest.mark.parametrize("count", [1, 11, 0])
def test_a_count_that_is_no_grid(count):
    with pytest.raises(ValueError, match=f"1 prefix.*Received: count={count}"):
        resize_positions(np.zeros((1 + 16, 4)), count)
