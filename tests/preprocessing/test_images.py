"""load_image: every kind of picture, and every refusal."""

import io

import numpy as np
import pytest
from builders import FASTEST
from drawn_photos import jpeg_of_scans
from PIL import Image

from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import check_head
from keras_bridgetower.preprocessing.images import load_image

pytestmark = FASTEST
RED = (200, 20, 40)


def encode(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


def plain(color=RED, mode="RGB", size=(6, 4)):
    return Image.new(mode, size, color)


def noise():
    pixels = np.random.default_rng(0).integers(0, 256, (90, 90, 3), "uint8")
    return Image.fromarray(pixels)


def transparent_palette():
    image = Image.fromarray(np.array([[0, 1]] * 4, "uint8").repeat(3, 1))
    image.putpalette([*RED, 0, 0, 255])
    return image


def rotated():
    exif = Image.Exif()
    exif[0x0112] = 6  # to be shown turned by a quarter, clockwise
    image = plain(size=(4, 6))
    image.paste((0, 0, 255), (0, 3, 4, 6))
    return encode(image, exif=exif)


SIXTEEN = np.array([[0, 257, 65535]] * 2, "uint16")
LA = np.stack([np.full((2, 3), 10), [[0, 255, 0]] * 2], -1).astype("uint8")
WHITE, DARK = (255, 255, 255), (10, 10, 10)
GREY = [(0, 0, 0), (1, 1, 1), WHITE]
KINDS = {
    # name: (input, the colours that its first row must have)
    "rgb": (plain(), [RED] * 6),
    "grey_array": (np.full((2, 3), 10, "uint8"), [DARK] * 3),
    "grey_array_1": (np.full((2, 3, 1), 10, "int64"), [DARK] * 3),
    "float_array": (np.full((2, 3, 3), 9.6, "float32"), [DARK] * 3),
    "float_zeros": (np.zeros((2, 3, 3)), [(0, 0, 0)] * 3),
    "rgba_array": (np.full((2, 3, 4), 0, "uint8"), [WHITE] * 3),
    "half_array": (np.array([[[0, 0, 0, 128]]], "uint8"), [(127,) * 3]),
    "uint16_array": (SIXTEEN, GREY),
    "rgba": (encode(plain((9, 9, 9, 0), "RGBA")), [WHITE] * 6),
    "la": (encode(Image.fromarray(LA)), [WHITE, DARK, WHITE]),
    "one_bit": (encode(plain(1, "1")), [WHITE] * 6),
    "palette": (encode(transparent_palette()), [RED] * 3 + [(0, 0, 255)] * 3),
    "transparent_palette": (
        encode(transparent_palette(), transparency=1),
        [RED] * 3 + [WHITE] * 3,
    ),
    "rgb_transparency": (encode(plain(), transparency=RED), [WHITE] * 6),
    "cmyk": (encode(plain((0, 0, 0, 0), "CMYK"), "JPEG"), [WHITE] * 6),
    "png_16_bit": (encode(Image.fromarray(SIXTEEN)), GREY),
    "pil_32_bit": (Image.fromarray(SIXTEEN.astype("int32")), GREY),
    "pil_float": (Image.fromarray(np.full((2, 3), 10, "float32")), [DARK] * 3),
    "exif": (rotated(), [(0, 0, 255)] * 3 + [RED] * 3),
    "webp": (encode(plain(), "WEBP", lossless=True), [RED] * 6),
    "bmp": (encode(plain(), "BMP"), [RED] * 6),
    "tiff": (encode(plain(), "TIFF"), [RED] * 6),
    "ppm": (encode(plain(), "PPM"), [RED] * 6),
    "gif": (
        encode(plain(), "GIF", save_all=True, append_images=[plain((0, 0, 9))]),
        [RED] * 6,
    ),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_picture(kind, tmp_path):
    image, row = KINDS[kind]
    outputs = load_image(image)
    assert outputs.dtype == np.uint8 and outputs.shape[2] == 3
    assert [tuple(color) for color in outputs[0].tolist()] == row
    if isinstance(image, bytes):
        (tmp_path / "file").write_bytes(image)
        path = tmp_path / "file"
        with open(path, "rb") as file:
            file.read(3)
            for other in (path, str(path), np.str_(path), file, file):
                np.testing.assert_array_equal(load_image(other), outputs)
        for other in (bytearray(image), memoryview(image), io.BytesIO(image)):
            np.testing.assert_array_equal(load_image(other), outputs)
        with Image.open(path) as opened:
            np.testing.assert_array_equal(load_image(opened), outputs)


def test_rows_of_converted_pictures_keep_their_place():
    gray = np.arange(200, dtype="uint8")[:, None].repeat(3, 1)
    deep = gray.astype("uint16") * 257
    opaque = Image.fromarray(np.stack([gray, np.full_like(gray, 255)], -1))
    for image in (opaque, Image.fromarray(deep), deep):
        np.testing.assert_array_equal(load_image(image)[..., 2], gray)


BAD_ARRAYS = [
    (np.full((2, 2, 3), np.nan), "finite.*from nan"),
    (np.full((2, 2, 3), 256), "scale from 0 to 255.*to 256"),
    (np.full((2, 2), 1.2), "scale from 0 to 255.*to 1.2"),
    (np.eye(4, dtype="int64"), "scale from 0 to 255.*to 1"),
    (np.full((2, 2, 3), 255, "uint16"), "range 0 to 65535.*to 255"),
    (Image.fromarray(np.full((2, 2), 4095, "int32")), "range.*to 4095"),
    (Image.fromarray(np.full((2, 2), -1, "int32")), "range.*-1"),
    (Image.fromarray(np.full((2, 2), 65536, "int32")), "range.*to 65536"),
    (np.zeros((0, 2, 3), "uint8"), "hold at least 1 and"),
    (np.zeros((3, 8, 8)), r"or an array.*\(3, 8, 8\)"),
    (np.zeros((2, 2, 3), bool), "or an array.*dtype bool"),
    ({"images": 1}, "or an array"),
    ("a\0b", "readable image file.*ValueError"),
    ("none.png", "must be a file that exists.*'none.png'"),
    *(
        (f"{where}b/c.png", "here: addresses are not opened.*Received: .*b/c")
        for where in ("http://", "https:/", "s3://")
    ),
]


@pytest.mark.parametrize(("image", "message"), BAD_ARRAYS)
def test_refused_pictures(image, message):
    with pytest.raises(ValueError, match=message):
        load_image(image)
    with pytest.raises(ValueError, match=r"`images\[1\]` must"):
        BridgeTowerImageConverter(32)([plain(), image])


@pytest.mark.parametrize("size", [(8, 8), (32, 32, 3)])
def test_a_mask_of_0_and_1_is_reported(size):
    mask = np.zeros(size, "uint8")
    converter = BridgeTowerImageConverter(32)
    black = converter(mask)
    mask[2:5, 2:5] = 1
    for image in (mask, encode(Image.fromarray(mask))):
        with pytest.warns(UserWarning, match=r"`images\[1\]`.*multiply.*255"):
            made = converter([mask * 255, image])
        assert made[0].max() > made[1].max() > black.max()


@pytest.mark.parametrize(
    ("content", "cause"),
    [
        (None, FileNotFoundError),
        (b"", Image.UnidentifiedImageError),
        (encode(noise())[:3000], OSError),
        (encode(noise(), "JPEG")[:1500], OSError),
    ],
    ids=["missing", "empty", "cut_png", "cut_jpeg"],
)
def test_unreadable_files_are_named(content, cause, tmp_path):
    path = tmp_path / "name.png"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ValueError, match="`photo` must.*name.png") as caught:
        load_image(path, name="photo")
    assert isinstance(caught.value.__cause__, cause)
    with pytest.raises(ValueError, match=r"images\[2\]='.*name.png'"):
        BridgeTowerImageConverter(32)([plain(), plain(), str(path)])


def test_image_bombs(monkeypatch):
    image = plain(size=(100, 100))
    # Pillow itself only warns of the first one.
    for limit in (9000, 3000):
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", limit)
        for bomb in (image, encode(image)):
            with pytest.raises(ValueError, match=f"at most {limit} pixels"):
                load_image(bomb)
        assert Image.MAX_IMAGE_PIXELS == limit
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert load_image(encode(image)).shape == (100, 100, 3)


def test_the_scans_of_a_jpeg_are_bounded(tmp_path):
    most, bomb = jpeg_of_scans(100), jpeg_of_scans(101)
    assert most.count(b"\xff\xda") == 100
    assert load_image(most).shape == (16, 16, 3)
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    for given in (bomb, io.BytesIO(bomb), path, str(path)):
        with pytest.raises(ValueError, match="at most 100 scans"):
            load_image(given)


def test_only_scans_of_the_picture_count():
    scans = b"\xff\xda\0\2" * 200
    whole = jpeg_of_scans(10, segment=scans, behind=scans)
    np.testing.assert_array_equal(
        load_image(whole), load_image(jpeg_of_scans(10))
    )
    assert check_head(io.BytesIO(whole)) == (16, 16)
    # Segments that end at each place around the end of what is read at once.
    for length in range(65_500, 65_533):
        padded = jpeg_of_scans(101, segment=scans[:length].ljust(length))
        with pytest.raises(ValueError, match="at most 100 scans"):
            check_head(io.BytesIO(padded))
        padded = jpeg_of_scans(100, segment=scans[:length].ljust(length))
        assert check_head(io.BytesIO(padded)) == (16, 16)
