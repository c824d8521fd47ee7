"""An image encoder with the classifier that was trained on top of it.

A linear classifier of the mean of a map can also classify each place of the map
(class activation maps; Zhou et al., 2016). The probabilities are a state of
their own: they name things that the bridges never saw in training.
"""

import keras
import keras_hub

from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.encoders.registry import hidden_states
from keras_bridgetower.encoders.registry import register_encoder


@keras.saving.register_keras_serializable("keras_bridgetower")
class ClassifiedEncoder(keras_hub.models.Backbone):
    """An image encoder whose highest state is class probabilities.

    Args:
        encoder: an image encoder whose highest state is a map `(batch, height,
            width, channels)`, such as `keras_hub.models.EfficientNetBackbone`.
            The classifier gets its dtype.
        num_classes: int, number of classes.
        **kwargs: `name` and `trainable`.

    Call arguments:
        images: float tensor `(batch, S, S, 3)`.

    Returns:
        Float tensor `(batch, height, width, num_classes)`: at each place, the
        probabilities of the classes.

    Raises:
        ValueError: the highest state of `encoder` is not a map.

    Example:

    ```python
    encoder = kbt.convert.unimodal.image_encoder(
        "efficientnet-lite0.pth", with_classifier=True)
    encoder(images).shape  # (batch, 7, 7, 1000)
    ```
    """

    def __init__(self, encoder, num_classes, **kwargs):
        get_entry(encoder)  # Raises for images that it cannot have.
        states = hidden_states(encoder)
        if len(states[-1].shape) != 4:
            raise ValueError(
                "`encoder` must have maps `(batch, height, width, channels)`. "
                f"Received: {type(encoder).__name__}, a state of shape "
                f"{states[-1].shape}"
            )
        dtype = encoder.dtype_policy
        logits = keras.layers.Dense(num_classes, dtype=dtype, name="classes")
        classes = keras.layers.Softmax(dtype=dtype, name="probabilities")
        super().__init__(
            inputs=encoder.inputs[0],
            outputs=classes(logits(states[-1])),
            dtype=dtype,
            **kwargs,
        )
        # Its layers are tracked as parts of this model.
        object.__setattr__(self, "encoder", encoder)
        self.states = [*states, self.output]
        self.num_classes = num_classes

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.layers.serialize(self.encoder),
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_config(cls, config):
        config = dict(config)
        # The dtype and the size of images are those of the encoder.
        spec, dtype = config.pop("encoder"), config.pop("dtype")
        values = {**spec["config"], "dtype": dtype}
        encoder = keras.layers.deserialize({**spec, "config": values})
        shape = config.pop("image_shape", None)
        if shape is not None:
            values |= get_entry(encoder).sized(shape)
            encoder = type(encoder).from_config(values)
        return cls(encoder, **config)


@register_encoder(
    ClassifiedEncoder,
    "image",
    prefix_tokens=lambda encoder: 0,
    summary="mean",
    side_step=lambda encoder: get_entry(encoder.encoder).side_step(
        encoder.encoder
    ),
    correct=lambda encoder: get_entry(encoder.encoder).correct(encoder.encoder),
)
def states(encoder):
    """The states of the encoder, and above them the class probabilities."""
    return encoder.states
