"""BridgeTowerImageConverter against Pillow and transformers."""

import io

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import ONE_BACKEND
from PIL import Image

from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)

CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])


def picture(width, height, seed=0):
    """Smooth colours under noise, so that resizing matters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x / width, y / height, (x + y) / (width + height)], -1)
    noise = rng.uniform(-60, 60, (height, width, 3))
    return np.clip(255 * smooth + noise, 0, 255).astype("uint8")


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def normalise(pixels):
    return (np.asarray(pixels, "float64") / 255 - CLIP_MEAN) / CLIP_STD


@ONE_BACKEND
@pytest.mark.parametrize(
    ("width", "height", "side"),
    [
        *((640, 480, 294), (1000, 300, 288), (37, 61, 288)),
    ],
)
def test_hf_mode_equals_transformers(width, height, side):
    models = pytest.importorskip("transformers.models.bridgetower")
    peer = models.image_processing_pil_bridgetower.BridgeTowerImageProcessorPil(
        size={"shortest_edge": side},
        crop_size={"shortest_edge": side},
    )
    image = picture(width, height)
    expected = peer(Image.fromarray(image), return_tensors="np")
    expected = expected["pixel_values"][0].transpose(1, 2, 0)
    outputs = BridgeTowerImageConverter(side, mode="hf")(image)
    np.testing.assert_allclose(outputs, expected, atol=1e-6)


@ONE_BACKEND
@pytest.mark.parametrize(
    ("mode", "width", "height", "resized", "corner"),
    [
        ("squash", 9, 8, (288, 288), (0, 0)),
        ("squash", 640, 480, (288, 288), (0, 0)),
        ("crop", 427, 640, (288, 431), (0, 72)),  # 71.5 rounds to the even 72
        ("crop", 1000, 300, (960, 288), (336, 0)),
        ("crop", 100, 101, (288, 290), (0, 1)),
    ],
)
def test_squash_and_crop_equal_pillow(mode, width, height, resized, corner):
    image = picture(width, height)
    expected = np.asarray(Image.fromarray(image).resize(resized, Image.BICUBIC))
    left, top = corner
    expected = expected[top : top + 288, left : left + 288]
    outputs = BridgeTowerImageConverter(mode=mode)(image)
    assert outputs.dtype == np.float32
    np.testing.assert_allclose(outputs, normalise(expected), atol=1e-6)


def test_batches_equal_single_pictures(tmp_path):
    converter = BridgeTowerImageConverter(32)
    images = [picture(40, 30), picture(30, 50, seed=1)]
    singles = np.stack([converter(image) for image in images])
    paths = []
    for i, image in enumerate(images):
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(image).save(paths[-1])
    names = [str(path) for path in paths]
    for batch in (
        images,
        tuple(map(Image.fromarray, images)),
        paths,
        [path.read_bytes() for path in paths],
        np.array(names),
        np.array(names, object),
        tf.constant(names),
    ):
        outputs = converter(batch)
        assert isinstance(outputs, np.ndarray)
        np.testing.assert_array_equal(outputs, singles)
    nested = converter([names, names[::-1]])
    np.testing.assert_array_equal(nested, [singles, singles[::-1]])
    # Grey ones of several sizes in a graph.
    grey = images[0][..., 0]
    outputs = tf.function(lambda x: converter([x, x[:5]]))(tf.constant(grey))
    np.testing.assert_array_equal(outputs, converter([grey, grey[:5]]))
    # Arrays and tensors of pictures of one size.
    batch = np.stack([picture(40, 30), picture(40, 30, seed=1)])
    singles = np.stack([converter(image) for image in batch])
    tensor = keras.ops.convert_to_tensor(batch)
    for images in (batch, batch.astype("float32"), tf.constant(batch), tensor):
        np.testing.assert_array_equal(converter(images), singles)
    np.testing.assert_array_equal(converter(tensor[1]), singles[1])
    pairs = converter(np.stack([batch, batch]))
    np.testing.assert_array_equal(pairs, [singles, singles])


@ONE_BACKEND
def test_tf_data_equals_eager(tmp_path):
    converter = BridgeTowerImageConverter(32, mode="hf", size_divisor=16)
    images = np.stack([picture(40, 60), picture(40, 60, seed=1)])
    expected = converter(images)
    dataset = tf.data.Dataset.from_tensor_slices(images)
    jpeg = encode(Image.fromarray(images[0]), "JPEG")
    path = tmp_path / "0.jpg"
    path.write_bytes(jpeg)
    for pictures, outputs in (
        (dataset, expected),
        (dataset.map(lambda x: tf.cast(x, "float32")), expected),
        (dataset.batch(2, drop_remainder=True), expected[None]),
        (tf.data.Dataset.from_tensors(str(path)), converter(path)[None]),
        (tf.data.Dataset.from_tensors([jpeg]), converter([jpeg])[None]),
    ):
        mapped = pictures.map(converter, num_parallel_calls=2)
        assert mapped.element_spec.shape == outputs.shape[1:]
        assert mapped.element_spec.dtype == tf.float32
        np.testing.assert_array_equal(
            np.stack(list(mapped.as_numpy_iterator())), outputs
        )


@ONE_BACKEND
def test_long_and_thin_pictures_and_saved_values():
    for mode, size in (("hf", (3000, 40)), ("crop", (60000, 1))):
        thin = Image.new("RGB", size)
        with pytest.raises(ValueError, match="long and thin.*mode='squash'"):
            BridgeTowerImageConverter(mode=mode)(thin)
        assert BridgeTowerImageConverter()(thin).shape == (288, 288, 3)
    converter = BridgeTowerImageConverter(64, "hf", 16, name="eye")
    config = keras.saving.serialize_keras_object(converter)
    again = keras.saving.deserialize_keras_object(config)
    assert again.get_config() == converter.get_config()
    # What KerasHub reads off a converter describes what is done.
    image = picture(90, 70)
    expected = image[0, 0] * np.array(again.scale) + again.offset
    np.testing.assert_allclose(expected, normalise(image[0, 0]))
