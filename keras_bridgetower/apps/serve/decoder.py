"""The process that decodes pictures for a server, run by `python -m`.

It does one job after another, until the other side closes the socket. A job
and its answer are the lengths of JSON and of bytes, and then both.
"""

import contextlib
import io
import json
import os
import signal
import socket
import struct
import sys
import typing

import numpy as np
from PIL import Image

from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import open_image

# Models and HTTP have the processor first.
_NICE = 5
LENGTHS = struct.Struct("!II")
# Characters of an error.
_LONGEST = 4000


class Square(typing.NamedTuple):
    """What `as_square` reads of an image converter."""

    image_size: int
    mode: str
    size_divisor: int


def main(descriptor):
    """Do jobs until the socket is closed.

    Args:
        descriptor: int, file descriptor of a connected socket.
    """
    # It ends with the server, which answers what it has before.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    with (
        socket.socket(fileno=descriptor) as connection,
        connection.makefile("rwb") as file,
        # The server has gone.
        contextlib.suppress(OSError),
    ):
        while head := file.read(LENGTHS.size):
            job, data = map(file.read, LENGTHS.unpack(head))
            answer, pixels = _done(json.loads(job), data)
            file.write(framed(answer, pixels))
            file.flush()


def framed(values, data):
    """The bytes of a job or of an answer.

    Args:
        values: dict.
        data: bytes.
    """
    text = json.dumps(values).encode()
    return b"".join((LENGTHS.pack(len(text), len(data)), text, data))


def _done(job, data):
    """The answer to a job, a dict, and its pixels."""
    # The signal ends this process, even within a decoder.
    signal.setitimer(signal.ITIMER_PROF, job["seconds"])
    try:
        if job["square"] is None:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                return {"size": image.size}, b""
        picture = open_image(job["path"] or data, "image")
        square = as_square(picture, Square(*job["square"]), "image")
        pixels = np.asarray(square)
        return {"size": pixels.shape[1::-1]}, pixels.tobytes()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        return {"too_large": True}, b""
    # Damaged files make Pillow raise nearly anything.
    except Exception as error:
        return {"error": str(error)[:_LONGEST]}, b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
