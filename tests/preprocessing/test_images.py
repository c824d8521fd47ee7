"""Pictures of every kind in load_image and the image converter; refusals."""

import builtins
import io
import os
import pathlib
import pickle
import socket
import struct
import time
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import FASTEST
from builders import ONE_BACKEND
from drawn_photos import jpeg_of_scans
from PIL import Image

from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_text
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import check_head
from keras_bridgetower.preprocessing.images import load_image
from keras_bridgetower.preprocessing.images import open_image

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


@FASTEST
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


@FASTEST
def test_rows_of_converted_pictures_keep_their_place():
    gray = np.arange(200, dtype="uint8")[:, None].repeat(3, 1)
    deep = gray.astype("uint16") * 257
    opaque = Image.fromarray(np.stack([gray, np.full_like(gray, 255)], -1))
    for image in (opaque, Image.fromarray(deep), deep):
        np.testing.assert_array_equal(load_image(image)[..., 2], gray)


DIM = Image.fromarray(np.full((2, 3), 200, "uint16"))
BAD_ARRAYS = [
    (np.full((2, 2, 3), np.nan), "finite.*from nan"),
    (np.full((2, 2, 3), 256), "scale from 0 to 255.*to 256"),
    (np.full((2, 2), 1.2), "scale from 0 to 255.*to 1.2"),
    (np.eye(4, dtype="int64"), "scale from 0 to 255.*to 1"),
    (np.full((2, 2, 3), 255, "uint16"), "range 0 to 65535.*to 255"),
    (Image.fromarray(np.full((2, 2), 4095, "int32")), "range.*to 4095"),
    (Image.fromarray(np.full((2, 2), -1, "int32")), "range.*-1"),
    (Image.fromarray(np.full((2, 2), 65536, "int32")), "range.*to 65536"),
    (DIM, "0 to 65535.*200 to 200"),
    (Image.open(io.BytesIO(encode(DIM, "TIFF"))), "0 to 65535.*200 to 200"),
    (Image.fromarray(np.full((2, 3), 0.7, "float32")), "scale from 0 to 255"),
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


@FASTEST
@pytest.mark.parametrize(("image", "message"), BAD_ARRAYS)
def test_refused_pictures(image, message):
    with pytest.raises(ValueError, match=message):
        load_image(image)
    with pytest.raises(ValueError, match=r"`images\[1\]` must"):
        BridgeTowerImageConverter(32)([plain(), image])


@FASTEST
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


@FASTEST
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


@FASTEST
def test_the_scans_of_a_jpeg_are_bounded(tmp_path):
    most, bomb = jpeg_of_scans(100), jpeg_of_scans(101)
    assert most.count(b"\xff\xda") == 100
    assert load_image(most).shape == (16, 16, 3)
    path = tmp_path / "bomb.png"
    path.write_bytes(bomb)
    for given in (bomb, io.BytesIO(bomb), path, str(path)):
        with pytest.raises(ValueError, match="at most 100 scans"):
            load_image(given)


@FASTEST
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


PNG = encode(plain())


@pytest.fixture
def opened(monkeypatch):
    """The paths that anything opens meanwhile."""
    paths = []
    for module in (builtins, io, os):
        real = module.open

        def spy(path, *args, real=real, **kwargs):
            paths.append(path)
            return real(path, *args, **kwargs)

        monkeypatch.setattr(module, "open", spy)
    return paths


@FASTEST
def test_bytes_are_never_opened_as_a_path(tmp_path, opened):
    path = tmp_path / "secret.png"
    path.write_bytes(PNG)
    opened.clear()
    for data in (bytes(path), np.bytes_(bytes(path)), bytearray(bytes(path))):
        with pytest.raises(ValueError, match="must be a readable image"):
            load_image(data)
    for images in ([bytes(path)], np.array([bytes(path)])):
        with pytest.raises(ValueError, match=r"`images\[0\]` must be a read"):
            BridgeTowerImageConverter(32)(images)
    assert opened == []
    load_image(path)
    assert str(path) in opened


def socket_at(path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(path.name)


SPECIAL = {
    "fifo": lambda path: os.mkfifo(path),
    "socket": socket_at,
    "link": lambda path: path.symlink_to("/dev/zero"),
    "/dev/urandom": None,
    "/proc/self/environ": None,
    "/sys/power/state": None,
}


@FASTEST
@pytest.mark.skipif(os.name != "posix", reason="POSIX alone has these files")
@pytest.mark.parametrize("kind", SPECIAL)
def test_special_files_are_refused_at_once(kind, tmp_path, monkeypatch, opened):
    monkeypatch.chdir(tmp_path)
    path = tmp_path / kind
    if make := SPECIAL[kind]:
        make(path)
    if not path.exists():
        pytest.skip("not on this system")
    opened.clear()
    start = time.process_time()
    told = "must be a plain file"
    picture = FilePicture(str(path))
    for read in (open_regular, read_text, load_image):
        with pytest.raises(ValueError, match=told):
            read(str(path))
    for read in (picture.open, picture.read):
        with pytest.raises(ValueError, match=told):
            read()
    assert told in picture.problem()
    assert time.process_time() - start < 1
    assert opened == []


UNREADABLE = {
    "empty": b"",
    "cut png": encode(noise())[:3000],
    "cut jpeg": encode(noise(), "JPEG")[:1500],
    "pickle": pickle.dumps({"data": b"x"}, protocol=2),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pdf": encode(Image.new("RGB", (9, 9)), "PDF"),
    "jpeg 2000": encode(Image.new("RGB", (9, 9)), "JPEG2000"),
}


@FASTEST
@pytest.mark.parametrize("kind", UNREADABLE)
def test_unreadable_files_are_named_whatever_their_name(kind, tmp_path):
    path = tmp_path / "name.png"
    path.write_bytes(UNREADABLE[kind])
    with open(path, encoding="latin1") as text:
        for image in (path, UNREADABLE[kind], text):
            with pytest.raises(ValueError, match="`photo` must be a readable"):
                load_image(image, name="photo")
    with pytest.raises(ValueError, match=r"images\[2\]='.*name.png'"):
        BridgeTowerImageConverter(32)([plain(), plain(), str(path)])
    if "cut" not in kind:
        assert "UnidentifiedImageError" in FilePicture(str(path)).problem()


@FASTEST
def test_a_dark_png_of_16_bits_is_reported():
    """Its white is known to be 65535."""
    dark = encode(Image.fromarray(np.full((2, 3), 200, "uint16")))
    for image in (dark, Image.open(io.BytesIO(dark))):
        with pytest.warns(UserWarning, match="`images` must use the range"):
            assert load_image(image).max() == 1


@FASTEST
@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_broadcast_arrays_take_no_memory(dtype):
    start = time.process_time()
    for shape in ((10**5, 10**5), (10**5, 10**5, 3), (10**5, 10**5, 4)):
        huge = np.broadcast_to(np.ones((), dtype), shape)
        for image in (huge, [huge]):
            with pytest.raises(ValueError, match="at most .* pixels"):
                BridgeTowerImageConverter(32)(image)
    assert time.process_time() - start < 1


@FASTEST
@pytest.mark.skipif(not os.path.exists("/proc"), reason="Linux tells memory")
@pytest.mark.parametrize("kind", ["alpha", "16 bits", "array of 16 bits"])
def test_decoding_takes_little_memory(kind):
    side = 2000
    deep = np.full((side, side), 50000, "uint16")
    image = Image.fromarray(deep)
    if kind == "alpha":
        image = Image.new("RGBA", (side, side), (9, 9, 9, 99))
    file = deep if "array" in kind else encode(image, compress_level=1)
    open_image(file)
    # Forgets the peak.
    pathlib.Path("/proc/self/clear_refs").write_text("5")
    before = resident("VmRSS")
    open_image(file)
    assert (resident("VmHWM") - before) / side**2 < 9


def resident(name):
    """Return bytes of memory of this process."""
    status = pathlib.Path("/proc/self/status").read_text()
    return 1024 * int(status.partition(f"{name}:")[2].split()[0])


def chunk(name, data):
    sum_ = struct.pack(">I", zlib.crc32(name + data))
    return struct.pack(">I", len(data)) + name + data + sum_


TURN = b"MM\x00\x2a\x00\x00\x00\x08\x00\x01\x01\x12\x00\x03\x00\x00\x00\x01"
TURN += b"\x00\x06\x00\x00\x00\x00\x00\x00"  # orientation 6


@FASTEST
@pytest.mark.parametrize("text", [False, True])
def test_endless_exif_headers(text):
    exif = b"Exif\0\0" * (4 * 2**20 // 6) + TURN
    held = chunk(b"eXIf", exif)
    if text:
        words = f"\nexif\n{len(exif)}\n{exif.hex()}".encode()
        held = chunk(b"tEXt", b"Raw profile type exif\0" + words)
    # Behind the signature and the header of 25 bytes.
    png = PNG[:33] + held + PNG[33:]
    start = time.process_time()
    assert load_image(png).shape == (4, 6, 3)
    with Image.open(io.BytesIO(png)) as image:
        assert load_image(image).shape == (4, 6, 3)
    assert time.process_time() - start < 2


CLIP_MEAN = np.array([0.48145466, 0.4578275, 0.40821073])
CLIP_STD = np.array([0.26862954, 0.26130258, 0.27577711])


def picture(width, height, seed=0):
    """Smooth colours under noise, so that resizing matters."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[0:height, 0:width]
    smooth = np.stack([x / width, y / height, (x + y) / (width + height)], -1)
    noise = rng.uniform(-60, 60, (height, width, 3))
    return np.clip(255 * smooth + noise, 0, 255).astype("uint8")


def normalise(pixels):
    return (np.asarray(pixels, "float64") / 255 - CLIP_MEAN) / CLIP_STD


@ONE_BACKEND
@pytest.mark.parametrize(
    ("width", "height", "side"),
    [*((640, 480, 294), (1000, 300, 288), (37, 61, 288))],
)
def test_hf_mode_equals_transformers(width, height, side):
    models = pytest.importorskip("transformers.models.bridgetower")
    peer = models.image_processing_pil_bridgetower.BridgeTowerImageProcessorPil(
        size={"shortest_edge": side}, crop_size={"shortest_edge": side}
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
def test_long_and_thin_pictures_and_values_of_kerashub():
    for mode, size in (("hf", (3000, 40)), ("crop", (60000, 1))):
        thin = Image.new("RGB", size)
        with pytest.raises(ValueError, match="long and thin.*mode='squash'"):
            BridgeTowerImageConverter(mode=mode)(thin)
        assert BridgeTowerImageConverter()(thin).shape == (288, 288, 3)
    converter = BridgeTowerImageConverter(64, "hf", 16)
    # What KerasHub reads off a converter describes what is done.
    image = picture(90, 70)
    expected = image[0, 0] * np.array(converter.scale) + converter.offset
    np.testing.assert_allclose(expected, normalise(image[0, 0]))
