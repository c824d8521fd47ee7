"""Decode pictures in separate processes, so that any job can be killed.

Each process runs this file by `python -m`: one job after another, until the
other side closes the connection.
"""

import asyncio
import contextlib
import dataclasses
import heapq
import io
import itertools
import json
import multiprocessing
import os
import signal
import subprocess
import sys
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image

from keras_bridgetower import startup
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import open_image

# Cost of a byte when a file header is read, in decoded pixels.
_BYTE = 10
# Jobs above this cost, about 0.1 s, leave one process free.
_COSTLY = 4_000_000
# Cost of a local file, whose size is unknown.
_FILE = 2_000_000


class Decoders:
    """Processes that each read and decode one picture at a time.

    If a job is cancelled, or takes more processor time than `picture_seconds`,
    its process is killed and replaced. Jobs of the cheapest requests come
    first.

    Args:
        limits: `Limits`.
        processes: int, at least 2.
    """

    def __init__(self, limits, processes=2):
        self._limits = limits
        self._idle = [_Process() for _ in range(processes)]
        # Heap of `(cost, number, future)`.
        self._waiting = []
        self._numbers = itertools.count()

    def close(self):
        for process in self._idle:
            process.end()

    async def sizes(self, images):
        """Return a dict from image files, bytes, to pixels or `Refused`."""
        return await self.squares(images, None, _BYTE * sum(map(len, images)))

    async def squares(self, images, square, cost=_FILE):
        """Decode pictures, resized for a model.

        Args:
            images: list of image files, as bytes or paths.
            square: `geometry.Square`.
            cost: int, number of pixels in all pictures of the request.

        Returns:
            dict from each image to an RGB `PIL.Image.Image`, or `Refused`.
        """
        jobs = (self._answer(image, square, cost) for image in images)
        found = await asyncio.gather(*jobs)
        return dict(zip(images, found, strict=True))

    async def _answer(self, image, square, cost):
        """Run `done` in a process."""
        seconds = self._limits.picture_seconds
        job = (image, square, seconds, self._limits.picture_pixels)
        process = await self._turn(cost)
        try:
            return await process.answer(job)
        except EOFError:
            process.restart()
            message = f"a picture is not decoded within {seconds} seconds."
            return errors.Refused(message, "image")
        except BaseException:
            process.restart()
            raise
        finally:
            self._idle.append(process)
            self._start()

    async def _turn(self, cost):
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (cost, next(self._numbers), turn))
        self._start()
        try:
            return await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._idle.append(turn.result())
                self._start()
            raise

    def _start(self):
        """Assign idle processes to the cheapest jobs."""
        while self._idle and self._waiting:
            cost, _, turn = self._waiting[0]
            if not turn.done():
                if cost > _COSTLY and len(self._idle) == 1:
                    return
                turn.set_result(self._idle.pop())
            heapq.heappop(self._waiting)


class _Process:
    """A decoding process and the connection to it.

    Spawned, since forking a process with threads and a device is not safe. It
    imports Pillow and NumPy, but not Keras.
    """

    def __init__(self):
        self._ours, theirs = multiprocessing.Pipe()
        number = theirs.fileno()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-P", "-Wignore", "-m", __name__, str(number)],
                pass_fds=[number],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                env={
                    **os.environ,
                    startup.SERVER: "1",
                    "OMP_NUM_THREADS": "1",
                    "PYTHONPATH": os.pathsep.join(filter(None, sys.path)),
                },
                # Signals of the server's terminal do not reach it.
                start_new_session=True,
            )

    async def answer(self, job):
        """Run `done`. Raise EOFError if the process has ended."""
        if self._process.poll() is not None:
            self.restart()
        # If the request ends first, so does the process, and then the thread.
        return await asyncio.to_thread(_exchange, self._ours, job)

    def restart(self):
        self.end()
        self.__init__()

    def end(self):
        self._process.kill()
        code = self._process.wait()
        if code not in (-signal.SIGKILL, -signal.SIGPROF):
            errors.LOG.error("A decoding process ended with code %s", code)


def _exchange(connection, job):
    try:
        connection.send(job)
        answer = json.loads(connection.recv_bytes())
        pixels = connection.recv_bytes()
    except OSError as error:
        raise EOFError from error
    if isinstance(answer, int):
        return answer
    if "refused" in answer:
        return errors.Refused(*answer["refused"])
    return Image.frombytes("RGB", answer["size"], pixels)


# --- In a process that decodes. ---


def main(descriptor):
    """Run jobs until the connection of a file descriptor is closed."""
    # It ends with the server, which first answers its last requests.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    # Models and HTTP get the processor first.
    os.nice(5)
    # The server has ended.
    with contextlib.suppress(EOFError, OSError):
        connection = Connection(descriptor)
        while True:
            send(connection, done(*connection.recv()))


def send(connection, answer):
    """Send a result of `done` as JSON and the bytes of pixels.

    The server unpickles nothing from a process that reads strangers' files.
    """
    pixels = b""
    if isinstance(answer, Image.Image):
        answer, pixels = {"size": answer.size}, answer.tobytes()
    elif isinstance(answer, errors.Refused):
        answer = {"refused": dataclasses.astuple(answer)}
    connection.send_bytes(json.dumps(answer).encode())
    connection.send_bytes(pixels)


def done(image, square, seconds, pixels):
    """Read the size of a picture, or decode it.

    Args:
        image: bytes of an image file, or str, the path of a local one.
        square: `Square` to decode it for, or None for its size.
        seconds: number, processor time after which this process ends.
        pixels: int, the most pixels of a picture.

    Returns:
        int, its number of pixels; or an RGB `PIL.Image.Image`; or `Refused`.
    """
    # The signal ends this process, even inside a decoder.
    signal.setitimer(signal.ITIMER_PROF, seconds)
    try:
        if square is not None:
            picture = open_image(image, "image")
            # Without its profiles and comments.
            return Image.fromarray(
                np.array(as_square(picture, square, "image"))
            )
        with Image.open(io.BytesIO(image), formats=FORMATS) as opened:
            count = opened.width * opened.height
        if count > pixels:
            raise Image.DecompressionBombError
        return count
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        message = f"a picture must have at most {pixels} pixels. Shrink it."
        return errors.Refused(message, "image", "picture_too_large")
    # Pillow raises nearly any error for damaged files.
    except Exception as error:
        message = str(error)[:4000]
        if square is None:
            message = f"must be a readable file, one of {', '.join(FORMATS)}."
        return errors.Refused(message, "image")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
