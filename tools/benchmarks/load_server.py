"""Load a server: throughput, latency, mix-ups, memory, and a killed worker.

Starts `keras-bridgetower serve` with a small preset, sends it requests from 1,
8 and 64 clients, and compares each answer with the offline one. A loop over
`embed` runs before and after each turn of the server. Speeds are printed with
processor times, which depend less on other programs. Other options go to the
server.

    KERAS_BACKEND=torch python tools/benchmarks/load_server.py
    ... --requests 200 --long 0      # a quick look
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
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import aiohttp
import numpy as np
import psutil
from PIL import Image
from PIL import ImageDraw

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_contrastive"
COLORS = ("red", "blue", "green", "yellow", "black", "white", "gray", "brown")
# Different requests, of which each client sends one after the other.
KINDS = 64
ROUTE = "/v1/embeddings"
# As the tests allow: the same rows, with others in the batch.
TOLERANCE = 1e-5


def questions():
    """Return texts, pictures and pairs: `(arguments of embed, input)`."""
    found = []
    for number in range(KINDS):
        color = COLORS[number % len(COLORS)]
        text = f"a small {color} circle {number}"
        picture = Image.new("RGB", (64, 64), (230, 235, 240))
        x = 2 * (number % 16)
        ImageDraw.Draw(picture).ellipse((x, 10, x + 25, 35), fill=color)
        image = encoded(picture, "PNG")
        texts = {"texts": text}, {"text": text}
        images = {"images": image}, as_input(image)
        both = texts[0] | images[0], texts[1] | images[1]
        found.append((texts, images, both)[number % 3])
    return found


def encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def as_input(image):
    return {"image": base64.b64encode(image).decode()}


def session():
    """Open a session with as many connections as requests at a time."""
    return aiohttp.ClientSession(
        connector=aiohttp.TCPConnector(limit=0),
        headers={"content-type": "application/json"},
    )


async def post(client, url, body):
    """Return status and body, or the name of an error of the connection."""
    try:
        async with client.post(url, data=body) as answer:
            return answer.status, await answer.read()
    except aiohttp.ClientError as error:
        return type(error).__name__, b""


async def load(url, asked, expected, clients, numbers, inputs=1, also=()):
    """Send requests, and count and check the answers.

    `asked` is what `questions` returns, `expected` has the vectors, `numbers`
    an int for each request; `also` are coroutines to run at the same time.
    """
    numbers = iter(numbers)
    places = (np.arange(KINDS)[:, None] + np.arange(inputs)) % KINDS
    rows = [[asked[place][1] for place in row] for row in places]
    bodies = [json.dumps({"model": PRESET, "input": x}).encode() for x in rows]
    times, statuses, found = [], collections.Counter(), []

    async def ask(client):
        for number in numbers:
            kind, started = number % KINDS, time.perf_counter()
            status, body = await post(client, url + ROUTE, bodies[kind])
            times.append(time.perf_counter() - started)
            statuses[status] += 1
            if status == 200:
                found.append((places[kind], body))

    started = time.perf_counter()
    async with session() as client:
        await asyncio.gather(*(ask(client) for _ in range(clients)), *also)
    seconds, wrong = time.perf_counter() - started, 0
    # Compared after the load, whose time it would take.
    for row, body in found:
        vectors = [one["embedding"] for one in json.loads(body)["data"]]
        right = [expected[place] for place in row]
        wrong += not np.allclose(vectors, right, rtol=0, atol=TOLERANCE)
    return {
        "seconds": seconds,
        "times": times,
        "statuses": dict(statuses),
        "wrong": wrong,
    }


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
        # All requests as columns, by the names of their arguments.
        self._given = {}
        for number in range(requests):
            given, _ = asked[number % KINDS]
            columns = self._given.setdefault(tuple(given), {})
            for name, value in given.items():
                columns.setdefault(name, []).append(value)
        self.vectors = [self._task.embed(**given) for given, _ in asked]

    def speed(self):
        """Rows in a second, and processor seconds of a row, by batches of 32.

        All rows of a batch are of the same kind.
        """
        started, used = time.perf_counter(), time.process_time()
        for columns in self._given.values():
            self._task.embed(**columns, batch_size=32)
        seconds = time.perf_counter() - started
        used = time.process_time() - used
        return np.array([self._requests / seconds, used / self._requests])


@contextlib.contextmanager
def server(log, *options):
    """Serve `PRESET` in another process; yields its address and process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["serve", PRESET, "--port", str(port), *options]
    process = subprocess.Popen(
        [sys.executable, "-m", "keras_bridgetower", *words],
        stdout=log,
        stderr=log,
    )
    url = f"http://127.0.0.1:{port}"
    try:
        wait(url, process)
        yield url, process
    finally:
        process.send_signal(signal.SIGTERM)
        started = time.perf_counter()
        process.wait(120)
        print(f"ended {time.perf_counter() - started:.1f} s after SIGTERM")


def wait(url, process):
    """Wait until a server is ready."""
    started = time.perf_counter()
    while not answers(url):
        if process.poll() is not None:
            raise RuntimeError("the server has ended; see its log")
        time.sleep(0.5)
    print(f"ready after {time.perf_counter() - started:.0f} s", flush=True)


def answers(url):
    try:
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


def say(name, found, *more):
    times = found["times"]
    p50, p95 = np.percentile(times, (50, 95)) * 1000
    words = [
        f"{len(times)} requests",
        f"{len(times) / found['seconds']:.0f} a second",
        *more,
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, at most {max(times):.2f} s",
        f"{found['statuses']}, {found['wrong']} wrong",
        f"load {os.getloadavg()[0]:.1f}",
    ]
    print(f"{name}: {'; '.join(words)}", flush=True)


def processes(parent):
    """`(resident MB, processor seconds)` of a process and all below, by id."""
    found = {}
    parent = psutil.Process(parent)
    for one in [parent, *parent.children(recursive=True)]:
        with contextlib.suppress(psutil.NoSuchProcess):
            used, size = one.cpu_times(), one.memory_info().rss
            found[one.pid] = (size / 1e6, used.user + used.system)
    return found


def largest(parent):
    """Return the id of the process with the models, and as `processes`."""
    return max(processes(parent).items(), key=lambda item: item[1])


async def killed(parent):
    """Kill the process with the models, a second after the load began."""
    await asyncio.sleep(1)
    os.kill(largest(parent)[0], signal.SIGKILL)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--minutes", type=int, default=0)
    options, served = parser.parse_known_args()
    asked, numbers = questions(), range(options.requests)
    offline = Offline(asked, options.requests)
    # Not counted: the first batches are slower.
    offline.speed()
    with (
        open("load_server.log", "w") as log,
        server(log, *served) as (url, process),
    ):

        def run(clients, numbers, **more):
            work = load(url, asked, offline.vectors, clients, numbers, **more)
            return asyncio.run(work)

        def used():
            return sum(time for _, time in processes(process.pid).values())

        for clients, inputs in ((1, 1), (8, 1), (64, 1), (64, 16)):
            before, started = offline.speed(), used()
            requests = options.requests // inputs
            found = run(clients, range(requests), inputs=inputs)
            row = 1000 * (used() - started) / (requests * inputs)
            after = offline.speed()
            speed, offline_row = (before + after) / 2
            share = requests * inputs / found["seconds"] / speed
            say(
                f"{clients} clients, {inputs} inputs",
                found,
                f"{share:.2f} of embed, which made {before[0]:.0f} and "
                f"{after[0]:.0f} rows a second",
                f"{row:.2f} ms of the processor for a row, "
                f"{1000 * offline_row:.2f} ms in embed",
            )
        say("400 clients", run(400, numbers))
        turns = [range(options.long)] * 2 if options.long else []
        turns += [None] * options.minutes
        for turn in turns:
            found = run(32, turn or until(60))
            _, (size, _) = largest(process.pid)
            say("steady", found, f"the process with the models: {size:.0f} MB")
        say("kill -9", run(16, numbers, also=[killed(process.pid)]))
        wait(url, process)
        say("afterwards", run(8, range(200)))


if __name__ == "__main__":
    main()
