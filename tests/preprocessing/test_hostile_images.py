"""Pictures that were made to hang, to leak, to fill the memory, or to hide."""

import builtins
import io
import os
import pathlib
import pickle
import socket
import struct
import time
import zlib

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image

from keras_bridgetower.data.datasets.cifar import read_pickle
from keras_bridgetower.data.datasets.tables import FilePicture
from keras_bridgetower.files import open_regular
from keras_bridgetower.files import read_text
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import load_image
from keras_bridgetower.preprocessing.images import open_image

pytestmark = FASTEST


def encoded(image, format="PNG", **options):
    file = io.BytesIO()
    image.save(file, format, **options)
    return file.getvalue()


PNG = encoded(Image.new("RGB", (6, 4), (200, 20, 40)))


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
    for read in (open_regular, read_text, read_pickle, load_image):
        with pytest.raises(ValueError, match=told):
            read(str(path))
    for read in (picture.open, picture.read):
        with pytest.raises(ValueError, match=told):
            read()
    assert told in picture.problem()
    assert time.process_time() - start < 1
    assert opened == []


FOREIGN = {
    "pickle": pickle.dumps({"data": b"x"}, protocol=2),
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EOF\n",
    "svg": b'<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"/>',
    "pdf": encoded(Image.new("RGB", (9, 9)), "PDF"),
    "jpeg 2000": encoded(Image.new("RGB", (9, 9)), "JPEG2000"),
}


@pytest.mark.parametrize("kind", FOREIGN)
def test_other_formats_are_refused_whatever_their_name(kind, tmp_path):
    path = tmp_path / "a.png"
    path.write_bytes(FOREIGN[kind])
    with open(path, encoding="latin1") as text:
        for image in (path, FOREIGN[kind], text):
            with pytest.raises(ValueError, match="readable image file"):
                load_image(image)
    assert "UnidentifiedImageError" in FilePicture(str(path)).problem()


def test_values_up_to_255_of_16_bit_modes_are_not_black():
    dim = np.full((2, 3), 200, "int32")
    for image in (
        Image.fromarray(dim),
        Image.fromarray(dim.astype("uint16")),
        Image.open(io.BytesIO(encoded(Image.fromarray(dim), "TIFF"))),
    ):
        assert image.mode.startswith("I")
        with pytest.raises(ValueError, match="0 to 65535.*200 to 200"):
            load_image(image)
    # A PNG says that its white is 65535.
    dark = encoded(Image.fromarray(dim.astype("uint16")))
    for image in (dark, Image.open(io.BytesIO(dark))):
        with pytest.warns(UserWarning, match="`images` must use the range"):
            assert load_image(image).max() == 1
    scaled = Image.fromarray(np.full((2, 3), 0.7, "float32"))
    with pytest.raises(ValueError, match="scale from 0 to 255"):
        load_image(scaled)


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "float32"])
def test_broadcast_arrays_take_no_memory(dtype):
    start = time.process_time()
    for shape in ((10**5, 10**5), (10**5, 10**5, 3), (10**5, 10**5, 4)):
        huge = np.broadcast_to(np.ones((), dtype), shape)
        for image in (huge, [huge]):
            with pytest.raises(ValueError, match="at most .* pixels"):
                BridgeTowerImageConverter(32)(image)
    assert time.process_time() - start < 1


@pytest.mark.skipif(not os.path.exists("/proc"), reason="Linux tells memory")
@pytest.mark.parametrize("kind", ["alpha", "16 bits", "array of 16 bits"])
def test_decoding_takes_little_memory(kind):
    side = 2000
    deep = np.full((side, side), 50000, "uint16")
    image = Image.fromarray(deep)
    if kind == "alpha":
        image = Image.new("RGBA", (side, side), (9, 9, 9, 99))
    file = deep if "array" in kind else encoded(image, compress_level=1)
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
