"""Position resizing against PyTorch's bicubic interpolation."""

import keras
import keras_hub
import numpy as np
import pytest
import torch
from builders import FASTEST
from builders import ONE_BACKEND
from builders import array
from builders import backbone
from builders import randomise

import keras_bridgetower as kbt
from keras_bridgetower.models.positions import resize_positions


@ONE_BACKEND
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize(
    "side, new, prefix", [(3, 5, 0), (18, 24, 1), (24, 14, 2), (4, 4, 1)]
)
def test_grid_is_resized_as_by_pytorch(side, new, prefix, antialias):
    rng = np.random.default_rng(0)
    # In float32 the peer itself is off by 7e-6.
    table = rng.normal(size=(prefix + side**2, 7))
    resized = resize_positions(table, prefix + new**2, antialias)
    np.testing.assert_array_equal(resized[:prefix], table[:prefix])
    grid = torch.tensor(table[prefix:].T.reshape(1, 7, side, side))
    expected = torch.nn.functional.interpolate(
        grid,
        size=(new, new),
        mode="bicubic",
        align_corners=False,
        antialias=antialias,
    )
    expected = expected.numpy().reshape(7, -1).T
    assert np.abs(resized[prefix:] - expected).max() <= 1e-12


@ONE_BACKEND
@pytest.mark.parametrize("count", [12, 1, 0])
def test_a_count_that_is_no_grid_is_rejected(count):
    with pytest.raises(ValueError, match="`count` must be a square.* plus 1"):
        resize_positions(np.ones((1 + 9, 7)), count)


@keras.saving.register_keras_serializable(package="test_positions")
class Places(keras.layers.Layer):
    """Add a row to each token; with `wide`, the weight is not a table."""

    def __init__(self, wide=False, **kwargs):
        super().__init__(**kwargs)
        self.wide = wide

    def build(self, shape):
        shape = (shape[1], shape[2], 1) if self.wide else shape[1:]
        self.places = self.add_weight(
            shape=shape, initializer="random_normal", name="places"
        )

    def call(self, x):
        return x + (self.places[..., 0] if self.wide else self.places)

    def get_config(self):
        return {**super().get_config(), "wide": self.wide}


@keras.saving.register_keras_serializable(package="test_positions")
class OwnImages(keras_hub.models.Backbone):
    """An encoder whose table of positions has another name."""

    patch_size = 8

    def __init__(self, image_shape=(32, 32, 3), wide=False, **kwargs):
        images = keras.Input(image_shape, name="images")
        x = keras.layers.Conv2D(16, self.patch_size, self.patch_size)(images)
        x = keras.layers.Reshape((-1, 16))(x)
        x = Places(wide, name="positions")(x)
        x = keras.layers.Dense(16, name="block")(x)
        super().__init__(inputs=images, outputs=x, **kwargs)
        self.image_shape, self.wide = image_shape, wide

    def get_config(self):
        own = {"image_shape": self.image_shape, "wide": self.wide}
        return {**super().get_config(), **own}


@kbt.hidden_states.register(OwnImages)
def own_states(encoder):
    return [encoder.get_layer("block").output]


def position_table(model):
    (found,) = (w for w in model.weights if w.path.endswith("/places"))
    return array(found)


@FASTEST
def test_positions_of_a_custom_encoder():
    made = randomise(backbone(OwnImages(), num_layers=1))
    larger = made.with_image_size(np.int64(64))
    assert larger.image_size == 64
    expected = resize_positions(position_table(made), 64)
    np.testing.assert_array_equal(position_table(larger), expected)
    assert position_table(larger).std() > 0.01


@FASTEST
def test_other_weights_are_not_resized():
    made = backbone(OwnImages(wide=True), num_layers=1)
    with pytest.raises(ValueError, match="tables of positions.*/places of"):
        made.with_image_size(64)
