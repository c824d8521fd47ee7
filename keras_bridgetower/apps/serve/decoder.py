"""Decode pictures for a server, in a process run by `python -m`.

It runs one job after another until the other side closes the connection. Jobs
and answers are a message of JSON and one of bytes.
"""

import contextlib
import io
import json
import os
import signal
import sys
import typing
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image

from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import open_image

# Models and HTTP get the processor first.
_NICE = 5
# Code of errors about too many pixels.
_CODE = "picture_too_large"
# Characters of an error message.
_LONGEST = 4000


class Square(typing.NamedTuple):
    """The fields of an image converter that `as_square` reads."""

    image_size: int
    mode: str
    size_divisor: int


def main(descriptor):
    """Run jobs until the connection is closed.

    Args:
        descriptor: int, file descriptor of a connection.
    """
    # It ends with the server, which first answers its last requests.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.SIG_IGN)
    os.nice(_NICE)
    # The server has ended.
    with contextlib.suppress(EOFError, OSError):
        connection = Connection(descriptor)
        while True:
            job, data = receive(connection)
            send(connection, *_done(job, data))


def send(connection, values, data):
    """Send a job or an answer: a dict and bytes."""
    connection.send_bytes(json.dumps(values).encode())
    connection.send_bytes(data)


def receive(connection):
    """Receive a job or an answer, a dict and bytes."""
    return json.loads(connection.recv_bytes()), connection.recv_bytes()


def _done(job, data):
    """Run a job. Return the answer, a dict, and the pixels."""
    # The signal ends this process, even inside a decoder.
    signal.setitimer(signal.ITIMER_PROF, job["seconds"])
    most = job["pixels"]
    try:
        if job["square"] is None:
            with Image.open(io.BytesIO(data), formats=FORMATS) as image:
                size = image.size
            if size[0] * size[1] > most:
                raise Image.DecompressionBombError
            return {"size": size}, b""
        picture = open_image(job["path"] or data, "image")
        square = as_square(picture, Square(*job["square"]), "image")
        pixels = np.asarray(square)
        return {"size": pixels.shape[1::-1]}, pixels.tobytes()
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        problem = f"a picture must have at most {most} pixels"
        return {"error": f"{problem}. Send a smaller one.", "code": _CODE}, b""
    # Pillow raises nearly any error for damaged files.
    except Exception as error:
        message = str(error)[:_LONGEST]
        if job["square"] is None:
            message = (
                "a picture must be a readable file, one of "
                f"{', '.join(FORMATS)}. Received: {len(data)} bytes"
            )
        return {"error": message}, b""
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
