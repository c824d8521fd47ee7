"""Load a server: throughput, latency, mix-ups, memory, and a killed worker.

Starts `keras-bridgetower serve` with a small preset, sends it requests from 1,
8 and 64 clients, and compares each answer with the offline one. Its own loop
over `embed` runs before and after each turn of the server. Each speed has the
processor time beside it, which other programs on the machine hardly change.

    KERAS_BACKEND=torch python tools/benchmarks/load_server.py
    ... --requests 200 --long 0      # a quick look
    ... --engine ray
    ... --minutes 10                 # at the end, requests for ten minutes
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import io
import itertools
import json
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import numpy as np
from PIL import Image
from PIL import ImageDraw

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_contrastive"
COLOURS = ("red", "blue", "green", "yellow", "black", "white", "gray", "brown")
# Different requests, of which each client sends one after the other.
KINDS = 64
# As the tests allow: the same rows, with others in the batch.
TOLERANCE = 1e-5


def questions():
    """Return texts, pictures and pairs: `(arguments of embed, input)`."""
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
    """A persistent connection; it costs less time than a client's library."""

    def __init__(self, url):
        self._address = urllib.parse.urlsplit(url)
        self._streams = None

    async def post(self, body):
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


async def load(url, asked, expected, clients, numbers, inputs=1, also=()):
    """Send requests, count what comes back, and await what runs beside it.

    `asked` is what `questions` returns, `expected` the vectors, `clients` how
    many send at a time, and `numbers` has an int for each request.
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
    times, statuses, found = [], collections.Counter(), []

    async def client():
        connection = Connection(url)
        for number in numbers:
            started = time.perf_counter()
            status, body = await connection.post(bodies[number % KINDS])
            times.append(time.perf_counter() - started)
            statuses[status] += 1
            if status == 200:
                found.append((number % KINDS, body))
        await connection.close()

    started = time.perf_counter()
    await asyncio.gather(*(client() for _ in range(clients)), *also)
    seconds = time.perf_counter() - started
    # Compared after the load, whose time it would take.
    wrong = sum(
        _apart(body, [expected[i] for i in sent[number]]) > TOLERANCE
        for number, body in found
    )
    return {
        "seconds": seconds,
        "times": np.array(times),
        "statuses": dict(statuses),
        "wrong": wrong,
    }


def _apart(body, expected):
    rows = json.loads(body)["data"]
    found = [row["embedding"] for row in rows]
    return np.abs(np.subtract(found, expected)).max()


def until(seconds):
    end = time.monotonic() + seconds
    return itertools.takewhile(
        lambda _: time.monotonic() < end, itertools.count()
    )


class Offline:
    """The same requests to `embed` in this process."""

    def __init__(self, asked, requests):
        self._task = kbt.BridgeTowerContrastive.from_preset(PRESET)
        self._requests = requests
        rows = [asked[i % KINDS][0] for i in range(requests)]
        kinds = {}
        for row in rows:
            kinds.setdefault(tuple(row), []).append(row)
        self._columns = [
            {name: [row[name] for row in kind] for name in names}
            for names, kind in kinds.items()
        ]
        for given in self._columns:
            self._task.embed(**{name: x[:32] for name, x in given.items()})
        self.vectors = [self._task.embed(**given) for given, _ in asked]

    def speed(self):
        """Rows in a second, and processor seconds of a row, by batches of 32.

        All rows of a batch are of the same kind.
        """
        started, used = time.perf_counter(), time.process_time()
        for given in self._columns:
            self._task.embed(**given, batch_size=32)
        seconds = time.perf_counter() - started
        used = time.process_time() - used
        return np.array([self._requests / seconds, used / self._requests])


@contextlib.contextmanager
def server(log, *options, preset=PRESET):
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["serve", preset, "--port", str(port), *options]
    started = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_bridgetower", *words],
        stdout=log,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        while not answers(url):
            if process.poll() is not None:
                raise RuntimeError("the server has ended; see its log")
            time.sleep(0.5)
        print(f"ready after {time.perf_counter() - started:.0f} s")
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        started = time.perf_counter()
        process.wait(120)
        print(f"ended {time.perf_counter() - started:.1f} s after SIGTERM")


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def say(name, found, *more):
    count = len(found["times"])
    p50, p95 = np.percentile(found["times"], (50, 95)) * 1000
    words = [
        f"{count} requests",
        f"{count / found['seconds']:.0f} a second",
        *more,
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms",
        f"{found['statuses']}, {found['wrong']} wrong",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    print(f"{name}: {'; '.join(words)}", flush=True)


def processes(parent):
    """`(resident MB, processor seconds)` of all processes below one, by id."""
    parents, found = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name of a program, in brackets, may hold spaces.
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = int((folder / "statm").read_text().split()[1])
            ticks = int(state[11]) + int(state[12])
            parents[int(folder.name)] = int(state[1])
            found[int(folder.name)] = (
                pages * os.sysconf("SC_PAGESIZE") / 1e6,
                ticks / os.sysconf("SC_CLK_TCK"),
            )
    below, new = {parent}, {parent}
    while new:
        new = {one for one, above in parents.items() if above in new}
        below |= new
    return {one: found[one] for one in below if one in found}


def processor_seconds(parent):
    return sum(seconds for _, seconds in processes(parent).values())


def worker(parent):
    found = processes(parent)
    return max(found, key=found.get)


async def killed(parent):
    """Kill the process with the models, a second after the load began."""
    await asyncio.sleep(1)
    os.kill(worker(parent), signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=0)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--log", default="load_server.log")
    parser.add_argument("--engine", default="uvicorn")
    options = parser.parse_args()
    asked = questions()
    offline = Offline(asked, options.requests)

    with (
        open(options.log, "w") as log,
        server(log, "--engine", options.engine) as (url, process),
    ):

        def run(clients, numbers, **more):
            work = load(url, asked, offline.vectors, clients, numbers, **more)
            return asyncio.run(work)

        def by_turns(clients, requests, inputs=1):
            before = offline.speed()
            used = processor_seconds(process.pid)
            found = run(clients, range(requests), inputs=inputs)
            used = processor_seconds(process.pid) - used
            after = offline.speed()
            rows = requests * inputs
            speed, row = (before + after) / 2
            say(
                f"{clients} clients, {inputs} inputs",
                found,
                f"{rows / found['seconds'] / speed:.2f} of embed, which made "
                f"{before[0]:.0f} and {after[0]:.0f} rows a second",
                f"{1000 * used / rows:.2f} ms of the processor for a row, "
                f"{1000 * row:.2f} ms in embed",
            )

        def steady(name, numbers):
            say(name, run(32, numbers))
            size, _ = processes(process.pid)[worker(process.pid)]
            print(f"the process with the models: {size:.0f} MB", flush=True)

        for clients in options.clients:
            by_turns(clients, options.requests)
        by_turns(64, options.requests // 16, inputs=16)
        say("400 clients", run(400, range(options.requests)))
        for _ in range(2 if options.long else 0):
            steady("long", range(options.long))
        for minute in range(options.minutes):
            steady(f"minute {minute + 1}", until(60))
        numbers = range(options.requests)
        say("kill -9", run(16, numbers, also=[killed(process.pid)]))
        started = time.perf_counter()
        while not answers(url):
            time.sleep(0.5)
        print(f"back {time.perf_counter() - started:.0f} s after the load")
        say("afterwards", run(8, range(200)))


if __name__ == "__main__":
    main()
