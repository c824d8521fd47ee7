"""Decode pictures for a server, in a process run by `python -m`.

It runs one job after another until the other side closes the connection.
"""

import contextlib
import dataclasses
import io
import json
import os
import signal
import sys
from multiprocessing.connection import Connection

import numpy as np
from PIL import Image

from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.preprocessing.geometry import as_square
from keras_bridgetower.preprocessing.images import FORMATS
from keras_bridgetower.preprocessing.images import open_image


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
    elif isinstance(answer, Refused):
        answer = {"refused": dataclasses.astuple(answer)}
    connection.send_bytes(json.dumps(answer).encode())
    connection.send_bytes(pixels)


def receive(connection):
    answer = json.loads(connection.recv_bytes())
    pixels = connection.recv_bytes()
    if isinstance(answer, int):
        return answer
    if "refused" in answer:
        return Refused(*answer["refused"])
    return Image.frombytes("RGB", answer["size"], pixels)


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
        return Refused(message, "image", "picture_too_large")
    # Pillow raises nearly any error for damaged files.
    except Exception as error:
        message = str(error)[:4000]
        if square is None:
            message = f"must be a readable file, one of {', '.join(FORMATS)}."
        return Refused(message, "image")
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)


if __name__ == "__main__":
    main(int(sys.argv[1]))
