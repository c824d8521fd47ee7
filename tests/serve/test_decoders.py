"""Test the decoding processes: pixels, limits, and their end."""

import asyncio
import contextlib
import io
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
from builders import FASTEST
from drawn_photos import jpeg_of_scans
from hostile import png_of
from PIL import Image
from served import in_loop

pytest.importorskip("prometheus_client", reason="the extra `serve`")

from keras_bridgetower.apps.serve.decoder import Square
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.preprocessing.geometry import place
from keras_bridgetower.preprocessing.images import load_image

pytestmark = FASTEST
SQUARE = Square(32, "crop", 32)
# Seconds of a busy machine.
LONG = 60


def encoded(side=64, form="PNG", color="red"):
    file = io.BytesIO()
    Image.new("RGB", (side, side + 8), color).save(file, form)
    return file.getvalue()


def slow_picture(side=2500):
    """A small file that takes seconds: Pillow reads plain PPM in Python."""
    return b"P3 %d %d 255\n" % (side, side) + b"1 " * (3 * side * side)


@contextlib.asynccontextmanager
async def decoding(**limits):
    with contextlib.closing(Decoders(Limits(**limits))) as decoders:
        yield decoders


@pytest.fixture
def children():
    """Return the ids of the decoders started since the test began."""
    others = running()
    return lambda: running() - others


def running():
    found = subprocess.run(
        ["ps", "-ww", "--ppid", str(os.getpid()), "-o", "pid=,args="],
        capture_output=True,
        text=True,
        check=True,
    )
    return {
        int(line.split()[0])
        for line in found.stdout.splitlines()
        if "serve.decoder" in line
    }


@pytest.mark.parametrize("mode", ["squash", "crop", "hf"])
@in_loop
async def test_squares_equal_those_of_this_process(mode, tmp_path):
    rng = np.random.default_rng(0)
    file = io.BytesIO()
    pixels = rng.integers(0, 256, (70, 90, 3), "uint8")
    Image.fromarray(pixels).save(file, "JPEG")
    (tmp_path / "a").write_bytes(file.getvalue())

    async with decoding() as decoders:
        images = [file.getvalue(), str(tmp_path / "a"), encoded()]
        found = list(
            (await decoders.squares(images, Square(32, mode, 32))).values()
        )

    whole = Image.fromarray(load_image(file.getvalue()))
    expected = np.asarray(place(whole, 32, mode, 32))
    for square in found[:2]:
        np.testing.assert_array_equal(np.asarray(square), expected)
    assert found[2].getpixel((0, 0)) == (255, 0, 0)


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
        scans = jpeg_of_scans(101)
        refused = (await decoders.squares([scans], SQUARE))[scans]
        assert "at most 100 scans" in refused.message
        thin = io.BytesIO()
        Image.new("RGB", (100_000, 1)).save(thin, "PNG")
        found = await decoders.squares(
            [thin.getvalue()], Square(512, "crop", 32)
        )
        assert "long and thin" in found[thin.getvalue()].message


@in_loop
async def test_slow_pictures_kill_their_process(children):
    async with decoding(picture_seconds=0.2) as decoders:
        before = children()
        slow = slow_picture()
        refused = (await decoders.squares([slow], SQUARE, 10**8))[slow]
        assert isinstance(refused, Refused)
        assert "within 0.2 seconds" in refused.message
        good = encoded()
        assert (await decoders.squares([good], SQUARE))[good].size == (32, 32)
        assert len(children()) == 2
        assert len(children() & before) == 1


@in_loop
async def test_the_end_of_a_request_ends_its_work(children):
    async with decoding(picture_seconds=LONG) as decoders:
        before = children()
        work = decoders.squares([slow_picture()], SQUARE, 10**8)
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(1):
                await work
        assert len(children() & before) == 1
        assert len(children()) == 2


@in_loop
async def test_costly_pictures_do_not_delay_cheap_ones():
    async with decoding(picture_seconds=LONG) as decoders:
        good = encoded()
        # Both processes have started.
        await decoders.squares([good, encoded(65)], SQUARE)
        work = [
            asyncio.create_task(
                decoders.squares([slow_picture(2500 + i)], SQUARE, 10**8)
            )
            for i in range(4)
        ]
        await asyncio.sleep(0.1)
        for _ in range(20):
            await decoders.squares([good], SQUARE, 64 * 72)
        assert not any(task.done() for task in work)
        for task in work:
            task.cancel()
        await asyncio.gather(*work, return_exceptions=True)
        assert (await decoders.squares([good], SQUARE))[good].size == (32, 32)


@in_loop
async def test_a_process_that_was_killed_is_replaced(children):
    async with decoding() as decoders:
        good = encoded()
        for pid in children():
            os.kill(pid, signal.SIGKILL)
        while children():
            await asyncio.sleep(0.01)
        for _ in range(3):
            found = await decoders.squares([good], SQUARE)
            assert found[good].size == (32, 32)


def test_processes_ignore_sigterm_and_end_with_their_parent():
    code = (
        "import time\n"
        "from keras_bridgetower.apps.serve.decoders import Decoders\n"
        "from keras_bridgetower.apps.serve.plan import Limits\n"
        "decoders = Decoders(Limits())\n"
        "print(*(p._process.pid for p in decoders._idle), flush=True)\n"
        "time.sleep(600)\n"
    )
    until = time.monotonic() + LONG
    with subprocess.Popen(
        [sys.executable, "-c", code],
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
