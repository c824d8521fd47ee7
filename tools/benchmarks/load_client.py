"""Requests of many clients to a server, whose answers are compared.

Each client is one connection that is kept and written by hand: a client's
library would take more of the processor than the server does for a request.
"""

import asyncio
import base64
import contextlib
import io
import itertools
import json
import time
import urllib.parse

import numpy as np
from PIL import Image
from PIL import ImageDraw

PRESET = "bridgetower_tiny_easy_contrastive"
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "gray", "brown")
# Different requests, of which each client sends one after the other.
KINDS = 64
# As the tests allow: the same rows, with others in the batch.
TOLERANCE = 1e-5


def questions():
    """Texts, pictures and pairs: `(what embed takes, input of a request)`."""
    found = []
    for number in range(KINDS):
        colour = COLOURS[number % len(COLOURS)]
        text = f"a small {colour} circle {number}"
        image = picture(colour, number)
        written = base64.b64encode(image).decode()
        given = [
            {"texts": text},
            {"images": image},
            {"images": image, "texts": text},
        ][number % 3]
        sent = {"texts": ("text", text), "images": ("image", written)}
        found.append((given, dict(sent[name] for name in given)))
    return found


def picture(colour, number):
    image = Image.new("RGB", (64, 64), (230, 235, 240))
    x = 2 * (number % 16)
    ImageDraw.Draw(image).ellipse((x, 10, x + 25, 35), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    return file.getvalue()


class Connection:
    """A connection that is kept. It costs less time than a client's library.

    Args:
        url: str, the address of the server.
    """

    def __init__(self, url):
        self._address = urllib.parse.urlsplit(url)
        self._streams = None

    async def post(self, body):
        """The status and the body of an answer, or a word and no bytes."""
        try:
            if self._streams is None:
                self._streams = await asyncio.open_connection(
                    self._address.hostname, self._address.port
                )
            reader, writer = self._streams
            writer.write(
                b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
                b"content-type: application/json\r\n"
                b"content-length: %d\r\n\r\n" % len(body)
            )
            writer.write(body)
            head = (await reader.readuntil(b"\r\n\r\n")).lower()
            length = int(head.partition(b"content-length:")[2].split()[0])
            return int(head.split()[1]), await reader.readexactly(length)
        except (OSError, EOFError) as error:
            await self.close()
            return type(error).__name__, b""

    async def close(self):
        if self._streams is not None:
            writer = self._streams[1]
            self._streams = None
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()


async def load(url, asked, expected, clients, numbers, inputs=1, also=None):
    """Send requests of some inputs each, and count what comes back.

    Args:
        url: str, the address of the server.
        asked: as `questions` returns them.
        expected: list of vectors.
        clients: int, how many send at a time.
        numbers: iterable of int, one for each request.
        inputs: int.
        also: coroutine function without arguments, run beside the load.

    Returns:
        dict of seconds, times of each, statuses, and wrong answers.
    """
    numbers = iter(numbers)
    sent = [
        [(start + n) % KINDS for n in range(inputs)] for start in range(KINDS)
    ]
    bodies = [
        json.dumps(
            {"model": PRESET, "input": [asked[i][1] for i in places]}
        ).encode()
        for places in sent
    ]
    times, statuses, found = [], {}, []

    async def client():
        connection = Connection(url)
        for number in numbers:
            started = time.perf_counter()
            status, body = await connection.post(bodies[number % KINDS])
            times.append(time.perf_counter() - started)
            statuses[status] = statuses.get(status, 0) + 1
            if status == 200:
                found.append((number % KINDS, body))
        await connection.close()

    started = time.perf_counter()
    work = [client() for _ in range(clients)]
    await asyncio.gather(*work, *([also()] if also else []))
    seconds = time.perf_counter() - started
    # Compared after the load, whose time it would take.
    wrong = sum(
        _apart(body, [expected[i] for i in sent[number]]) > TOLERANCE
        for number, body in found
    )
    return {
        "seconds": seconds,
        "times": np.array(times),
        "statuses": statuses,
        "wrong": wrong,
    }


def _apart(body, expected):
    rows = json.loads(body)["data"]
    found = [row["embedding"] for row in rows]
    return np.abs(np.subtract(found, expected)).max()


def until(seconds):
    """Numbers of requests, until so many seconds have passed."""
    end = time.monotonic() + seconds
    return itertools.takewhile(
        lambda _: time.monotonic() < end, itertools.count()
    )
