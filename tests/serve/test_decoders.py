"""Test the decoding processes: pixels, limits, and their end."""

import asyncio
import contextlib
import io
import itertools
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from builders import FASTEST
from drawn_photos import jpeg_of_scans
from drawn_photos import png_of
from PIL import Image
from served import in_loop

pytest.importorskip("prometheus_client", reason="the extra `serve`")

from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.preprocessing.geometry import Square
from keras_bridgetower.preprocessing.geometry import place
from keras_bridgetower.preprocessing.images import load_image

pytestmark = FASTEST
SQUARE = Square(32, "crop", 32)
# Seconds of a busy machine.
LONG = 60


def encoded(side=64):
    file = io.BytesIO()
    Image.new("RGB", (side, side + 8), "red").save(file, "PNG")
    return file.getvalue()


def slow_picture(side=2500):
    """A small file that takes seconds: Pillow reads plain PPM in Python."""
    return b"P3 %d %d 255\n" % (side, side) + b"1 " * (3 * side * side)


@contextlib.asynccontextmanager
async def decoding(**limits):
    with contextlib.closing(Decoders(Limits(**limits))) as decoders:
        yield decoders


async def square(decoders, image, pixels=64 * 72, square=SQUARE):
    return (await decoders.squares([image], square, pixels))[image]


def processes(decoders):
    return {process._process.pid for process in decoders._idle}


@in_loop
async def test_squares_equal_those_of_this_process(tmp_path):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (70, 90, 3), "uint8")
    Image.fromarray(pixels).save(file, "JPEG")
    (tmp_path / "a").write_bytes(file.getvalue())
    whole = Image.fromarray(load_image(file.getvalue()))
    async with decoding() as decoders:
        for mode, image in itertools.product(
            ("squash", "crop", "hf", "center"),
            (file.getvalue(), str(tmp_path / "a")),
        ):
            crop_pct = 0.8 if mode == "center" else 1
            asked = Square(32, mode, 32, crop_pct, "bilinear")
            found = await square(decoders, image, square=asked)
            # What a crop cuts off is sent too.
            found, expected = place(found, asked), place(whole, asked)
            np.testing.assert_array_equal(found, expected)


@in_loop
async def test_rejected_pictures():
    bad = {
        png_of(32768, 32768): ("at most 1000000 pixels", "picture_too_large"),
        png_of(1001, 1000): ("at most 1000000 pixels", "picture_too_large"),
        encoded()[:20]: ("readable file", None),
    }
    async with decoding(picture_pixels=1_000_000) as decoders:
        good = encoded()
        sizes = await decoders.sizes([*bad, good])
        assert sizes.pop(good) == 64 * 72
        for image, (words, code) in bad.items():
            assert words in sizes[image].message
            assert (sizes[image].about, sizes[image].code) == ("image", code)
        refused = await square(decoders, jpeg_of_scans(101))
        assert "at most 100 scans" in refused.message
    # Slow ones end their process.
    async with decoding(picture_seconds=0.2) as decoders:
        before = processes(decoders)
        refused = await square(decoders, slow_picture(), 10**8)
        assert "within 0.2 seconds" in refused.message
        assert (await square(decoders, good)).size == (32, 32)
        assert len(processes(decoders) & before) == 1


@in_loop
async def test_the_end_of_a_request_ends_its_work():
    async with decoding(picture_seconds=LONG) as decoders:
        before = processes(decoders)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await square(decoders, slow_picture(), 10**8)
        assert len(processes(decoders)) == 2
        [ended] = before - processes(decoders)
        assert not os.path.exists(f"/proc/{ended}")


@in_loop
async def test_a_process_that_was_killed_is_replaced():
    async with decoding() as decoders:
        for pid in processes(decoders):
            os.kill(pid, signal.SIGKILL)
        for process in decoders._idle:
            process._process.wait()
        for _ in range(3):
            assert (await square(decoders, encoded())).size == (32, 32)


CODE = """
import time
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.plan import Limits
decoders = Decoders(Limits())
print(*(p._process.pid for p in decoders._idle), flush=True)
time.sleep(600)
"""


def test_processes_ignore_sigterm_and_end_with_their_parent():
    until = time.monotonic() + LONG
    with subprocess.Popen(
        [sys.executable, "-c", CODE],
        stdout=subprocess.PIPE,
        env={**os.environ, "KERAS_BRIDGETOWER_SERVER": "1"},
    ) as parent:
        pids = [int(word) for word in parent.stdout.readline().split()]
        # SIGTERM would end them while they start.
        while not all(ignores_sigterm(pid) for pid in pids):
            assert time.monotonic() < until
            time.sleep(0.05)
        for pid in pids:
            os.kill(pid, signal.SIGTERM)
        time.sleep(0.2)
        assert all(os.path.exists(f"/proc/{pid}") for pid in pids)
        parent.kill()
    while any(os.path.exists(f"/proc/{pid}") for pid in pids):
        assert time.monotonic() < until
        time.sleep(0.05)


def ignores_sigterm(pid):
    with open(f"/proc/{pid}/status") as file:
        [mask] = [x.split()[1] for x in file if x.startswith("SigIgn")]
    return int(mask, 16) >> (signal.SIGTERM - 1) & 1
