"""An image encoder with the classifier that was trained on top of it.

A linear classifier of the mean of a map also classifies each place of the map
(class activation maps; Zhou et al., 2016). The probabilities are a state of
their own: they name things that the bridges never saw in training.
"""

import keras
import keras_hub

from keras_bridgetower.encoders.registry import entry_of
from keras_bridgetower.encoders.registry import hidden_states
from keras_bridgetower.encoders.registry import register_encoder


@keras.saving.register_keras_serializable("keras_bridgetower")
class ClassifiedEncoder(keras_hub.models.Backbone):
    """An image encoder whose highest state is class probabilities.

    Args:
        encoder: an image encoder whose highest state is a map `(batch, height,
            width, channels)`, such as `keras_hub.models.EfficientNetBackbone`.
        num_classes: int, number of classes.
        **kwargs: `name` and `dtype`.

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

    def __init__(self, encoder, num_classes, dtype=None, **kwargs):
        top = hidden_states(encoder)[-1]
        if len(top.shape) != 4:
            raise ValueError(
                "`encoder` must have maps `(batch, height, width, channels)`. "
                f"Received: {type(encoder).__name__}, a state of {top.shape}"
            )
        logits = keras.layers.Dense(num_classes, dtype=dtype, name="classes")
        classes = keras.layers.Softmax(dtype=dtype, name="probabilities")
        super().__init__(
            inputs=encoder.inputs[0],
            outputs=classes(logits(top)),
            dtype=dtype,
            **kwargs,
        )
        # Its layers are tracked as parts of this model.
        object.__setattr__(self, "encoder", encoder)
        self.num_classes = num_classes

    def get_config(self):
        return {
            **super().get_config(),
            "encoder": keras.layers.serialize(self.encoder),
            "num_classes": self.num_classes,
        }

    @classmethod
    def from_config(cls, config, custom_objects=None):
        config = dict(config)
        shape = config.pop("image_shape", None)
        encoder = keras.layers.deserialize(
            config["encoder"], custom_objects=custom_objects
        )
        if shape is not None:
            sized = entry_of(encoder).sized(shape)
            encoder = type(encoder).from_config(encoder.get_config() | sized)
        return cls(**{**config, "encoder": encoder})


@register_encoder(
    ClassifiedEncoder,
    "image",
    prefix_tokens=lambda encoder: 0,
    summary="mean",
    side_step=lambda encoder: entry_of(encoder.encoder).side_step(
        encoder.encoder
    ),
    correct=lambda encoder: entry_of(encoder.encoder).correct(encoder.encoder),
)
def states(encoder):
    """The states of the encoder, and above them the class probabilities."""
    return [*hidden_states(encoder.encoder), encoder.output]
