"""Decode pictures in separate processes, so that any job can be killed."""

import asyncio
import heapq
import itertools
import multiprocessing
import os
import signal
import subprocess
import sys

from keras_bridgetower import startup
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.decoder import receive

# Cost of a byte when a file header is read, in decoded pixels.
_BYTE = 10
# Jobs above this cost, about 0.1 s, leave one process free.
_COSTLY = 4_000_000
# Cost of a local file, whose size is unknown.
_FILE = 2_000_000
_MODULE = "keras_bridgetower.apps.serve.decoder"


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
        """Run `decoder.done` in a process."""
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
                [sys.executable, "-P", "-Wignore", "-m", _MODULE, str(number)],
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
        """Run `decoder.done`. Raise EOFError if the process has ended."""
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
        return receive(connection)
    except OSError as error:
        raise EOFError from error
