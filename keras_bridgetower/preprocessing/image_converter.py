"""Resizes and normalizes pictures exactly as the authors' code does."""

import keras
import keras_hub
import numpy as np

from keras_bridgetower import checks
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.preprocessing import geometry
from keras_bridgetower.preprocessing import tf_graph
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.preprocessing.images import warn_of_mask
from keras_bridgetower.preprocessing.verb_inputs import list_pictures
from keras_bridgetower.preprocessing.verb_inputs import pictures_in
from keras_bridgetower.presets import registry

# KerasHub's name for the configuration of an image converter.
CONFIG = "image_converter.json"


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerImageConverter(
    keras_hub.layers.ImageConverter, tf_graph.DirectLayer
):
    """Converts pictures of any kind and size to normalized square arrays.

    Pillow decodes and resizes each picture (bicubic, anti-aliased). Its 8-bit
    values are divided by 255 and normalized with CLIP's mean and standard
    deviation. The same code runs eagerly and, through `tf.numpy_function`, in a
    TensorFlow graph such as `tf.data.Dataset.map`; the numbers are equal to the
    last bit. For the values of another image encoder see
    `keras_bridgetower.convert.unimodal.image_converter`.

    Args:
        image_size: int, side of the output in pixels.
        mode: str. `"squash"` resizes straight to the square (the authors'
            evaluation in fine-tuning). `"crop"` resizes the shorter side and
            takes the center (their pre-training). `"center"` also rounds the
            corner of the center down, as image processors of `transformers`
            do. `"hf"` follows BridgeTower's image processor of
            `transformers` 4, as the published presets do: sides are floored
            to multiples of `size_divisor`, long pictures shrink, black fills
            missing pixels. With 294 pixels and 32 the picture is 288 wide
            with a black edge of 3, as in `transformers` 4. `"crop"` fills all
            294 pixels, as in the authors' training.
        size_divisor: int, used by the mode `"hf"` only.
        mean, std: three numbers each, of red, green and blue; by default
            CLIP's. Encoders of ImageNet and ViT were trained with others.
        crop_pct: float above 0, to 1. A mode resizes to `image_size /
            crop_pct`, rounded down, and takes the center as the square: with
            224 pixels and 0.875 from 256, as most encoders of ImageNet do.
            A stream, whose transform makes the squares, needs 1.
        resample: str, the filter of Pillow: `"bicubic"`, `"bilinear"`,
            `"lanczos"`, `"nearest"`, `"box"` or `"hamming"`.
        **kwargs: arguments of `keras.layers.Layer`, such as `name`.

    Call arguments:
        images: one picture, in any form that
            `keras_bridgetower.preprocessing.images.load_image` reads, or a
            list, tuple or array of pictures; lists may be nested and pictures
            in a list may differ in size. In a graph: a string tensor of paths
            or encoded images, or a numeric tensor of known rank.

    Returns:
        float32 `(S, S, 3)` for one picture, `(B, S, S, 3)` for a batch: a
        NumPy array, in a graph a `tf.Tensor` of that static shape.

    Raises:
        ValueError: an unknown mode or filter, a size that is not a positive
            integer, another number that is out of range, or a picture that
            cannot be read, named as in `images[2]`.

    Example:

    ```python
    converter = BridgeTowerImageConverter(image_size=288)
    picture = np.random.randint(0, 256, size=(480, 640, 3), dtype="uint8")
    converter(picture).shape  # (288, 288, 3)
    converter([picture, picture[:100]]).shape  # (2, 288, 288, 3)
    ```

    Source: `src/transforms` of the authors' BridgeTower repository, and
    `BridgeTowerImageProcessor` of `transformers`.
    """

    backbone_cls = BridgeTowerBackbone
    # One integer here; a property of (height, width) in the base class.
    image_size = None

    def __init__(
        self,
        image_size=288,
        mode="squash",
        size_divisor=32,
        mean=MEAN,
        std=STD,
        crop_pct=1.0,
        resample="bicubic",
        **kwargs,
    ):
        checks.check_count("image_size", image_size)
        checks.check_count("size_divisor", size_divisor)
        checks.check_choice("mode", mode, tuple(geometry.MODES))
        checks.check_part("crop_pct", crop_pct)
        checks.check_choice("resample", resample, tuple(geometry.RESAMPLES))
        image_size, size_divisor = int(image_size), int(size_divisor)
        if mode == "hf":
            checks.check_at_most(
                "size_divisor", size_divisor, image_size, "pixels"
            )
        if not len(mean) == len(std) == 3 or min(std) <= 0:
            raise ValueError(
                "`mean` and `std` must be three numbers each, those of `std` "
                f"above 0. Received: mean={mean!r}, std={std!r}"
            )
        # All are set: passing one of them is an error, and reading one returns
        # the true value.
        super().__init__(
            image_size=(image_size, image_size),
            scale=tuple(1 / (255 * s) for s in std),
            offset=tuple(-m / s for m, s in zip(mean, std, strict=True)),
            crop_to_aspect_ratio=False,
            pad_to_aspect_ratio=False,
            interpolation=resample,
            antialias=True,
            data_format="channels_last",
            **kwargs,
        )
        # It never runs. But Keras reads one more batch before it predicts with
        # a layer that is not built, and reorders batches of several workers.
        self.resizing.built = True
        self.image_size = image_size
        self.mode = mode
        self.size_divisor = size_divisor
        self.crop_pct, self.resample = float(crop_pct), resample
        self.mean, self.std = tuple(mean), tuple(std)

    @property
    def square(self):
        """The `Square` of its values, which determine the 8-bit pixels."""
        return geometry.Square(
            self.image_size,
            self.mode,
            self.size_divisor,
            self.crop_pct,
            self.resample,
        )

    def call(self, images):
        if tf_graph.in_tf_graph():
            return self._in_graph(images)
        return self._convert(images)

    def _in_graph(self, images):
        import tensorflow as tf

        if isinstance(images, (list, tuple)):
            return tf.stack([self._in_graph(image) for image in images])
        images = tf.convert_to_tensor(images)
        # Strings have no axes of their own, a gray or color array has 2 or 3.
        strings = images.dtype == tf.string
        batch = images.shape if strings else images.shape[:-3]
        pixels = (self.image_size, self.image_size, 3)
        (outputs,) = tf_graph.numpy_function(
            lambda x: self._convert(pictures_in(x) if strings else x),
            [images],
            [tf.float32],
            stateful=False,
            blank=lambda x: [
                np.zeros((*x.shape[: len(batch)], *pixels), "float32")
            ],
        )
        outputs.set_shape([*batch, *pixels])
        return outputs

    def block(self, images, start, stop):
        """Convert `images[start:stop]`; errors name pictures by their index.

        Args:
            images: list of pictures, as `list_pictures` returns it.
            start, stop: ints.

        Returns:
            float32 NumPy array `(pictures, S, S, 3)`.
        """
        return self._convert(images[start:stop], number=start)

    def _convert(self, images, name="images", number=0):
        """Convert pictures; errors count several from `number`."""
        images, single = list_pictures(images)
        if single:
            return self._normalized(images[0], name)
        return np.stack(
            [
                self._convert(image, f"{name}[{i}]")
                for i, image in enumerate(images, number)
            ]
        )

    def _normalized(self, image, name):
        """Resize one picture, divide it by 255, and normalize it."""
        image = geometry.place(open_image(image, name), self.square, name)
        pixels = np.asarray(image)
        warn_of_mask(pixels, name)
        # NumPy is several times as fast on whole rows of pixels as on three
        # channels.
        rows = pixels.reshape(self.image_size, -1) / np.float32(255)
        rows -= np.tile(np.float32(self.mean), self.image_size)
        rows /= np.tile(np.float32(self.std), self.image_size)
        return rows.reshape(pixels.shape)

    @classmethod
    def from_preset(cls, preset, revision=None, **kwargs):
        """Open the converter of a preset.

        Args:
            preset, revision: as `BridgeTowerVQA.from_preset`.
            **kwargs: constructor values that replace the saved ones, such as
                `image_size` and `mode`.
        """
        checks.check_keywords(cls, kwargs, checks.OF_PRESETS)
        folder = registry.open_preset(preset, revision)
        return cls.from_folder(folder, **kwargs)

    @classmethod
    def from_folder(cls, folder, spec=None, **values):
        """Build the converter of an opened preset.

        Args:
            folder: `PresetFolder`.
            spec: dict, the converter in the preset's preprocessor, or None.
            **values: constructor values that replace the saved ones.
        """
        return folder.build(CONFIG, cls, spec, **values)

    def get_config(self):
        # The constructor fixes the other values of the base class.
        names = ("image_size", "mode", "size_divisor", "mean", "std")
        config = keras.layers.Layer.get_config(self)
        config |= {name: getattr(self, name) for name in names}
        return config | self.square.added_values()
