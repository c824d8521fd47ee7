"""Load on the server: throughput, times, mix-ups, memory, and a killed worker.

Starts `keras-bridgetower serve` with a tiny preset, sends it requests from 1,
8 and 64 clients, and compares each answer with the offline one.

    KERAS_BACKEND=torch python tools/benchmarks/load_server.py
    ... --requests 200 --long 0      # a quick look
"""

import argparse
import asyncio
import base64
import contextlib
import io
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time

import httpx
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


def offline(asked, requests):
    """The vectors by `embed`, and how many it makes in a second.

    One loop over batches of 32 of the same kind, as one process does it.
    """
    task = kbt.BridgeTowerContrastive.from_preset(PRESET)
    rows = [asked[i % KINDS][0] for i in range(requests)]
    kinds = {}
    for row in rows:
        kinds.setdefault(tuple(row), []).append(row)
    columns = [
        {name: [row[name] for row in kind] for name in names}
        for names, kind in kinds.items()
    ]
    for given in columns:
        task.embed(**{name: values[:32] for name, values in given.items()})
    started = time.perf_counter()
    for given in columns:
        task.embed(**given, batch_size=32)
    speed = requests / (time.perf_counter() - started)
    return [task.embed(**given) for given, _ in asked], speed


@contextlib.contextmanager
def server(log, *options):
    """A server in processes of its own; its address and process."""
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    words = ["serve", PRESET, "--port", str(port), *options]
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
        return httpx.get(f"{url}/ready", timeout=5).status_code == 200
    except httpx.HTTPError:
        return False


async def load(
    url, asked, expected, clients, requests, inputs=1, meanwhile=None
):
    """Send requests of some inputs each, and count what comes back.

    Returns:
        dict of seconds, times of each, statuses, and wrong answers.
    """
    numbers = iter(range(requests))
    times, statuses, wrong = [], {}, 0

    async def client(http):
        nonlocal wrong
        for number in numbers:
            places = [(number + n) % KINDS for n in range(inputs)]
            body = {"model": PRESET, "input": [asked[i][1] for i in places]}
            started = time.perf_counter()
            try:
                answer = await http.post(f"{url}/v1/embeddings", json=body)
                status = answer.status_code
            except httpx.HTTPError as error:
                status = type(error).__name__
            times.append(time.perf_counter() - started)
            statuses[status] = statuses.get(status, 0) + 1
            if status == 200:
                found = [row["embedding"] for row in answer.json()["data"]]
                apart = np.abs(
                    np.subtract(found, [expected[i] for i in places])
                )
                wrong += bool(apart.max() > TOLERANCE)

    limits = httpx.Limits(max_connections=clients)
    async with httpx.AsyncClient(timeout=120, limits=limits) as http:
        started = time.perf_counter()
        work = [client(http) for _ in range(clients)]
        if meanwhile is not None:
            work.append(meanwhile())
        await asyncio.gather(*work)
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "times": np.array(times),
        "statuses": statuses,
        "wrong": wrong,
    }


def say(name, found, compared=None, inputs=1):
    count = len(found["times"])
    p50, p95 = np.percentile(found["times"], (50, 95)) * 1000
    speed = count / found["seconds"]
    ratio = f", {inputs * speed / compared:.2f} of embed" if compared else ""
    print(
        f"{name}: {count} requests, {speed:.0f} a second{ratio}, "
        f"p50 {p50:.0f} ms, p95 {p95:.0f} ms, {found['statuses']}, "
        f"{found['wrong']} wrong; load {os.getloadavg()[0]:.1f}",
        flush=True,
    )


def processes():
    """Resident MB of the server's processes, by what they do and their id."""
    found = {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            words = (folder / "cmdline").read_bytes().split(b"\0")
            if b"ServeReplica" in words[0]:
                pages = int((folder / "statm").read_text().split()[1])
                name = words[0].decode().split(":")[-1].split(".")[0]
                found[name, int(folder.name)] = pages * 4096 / 1e6
    return found


async def kill_worker():
    """Kill the process of the model, a second after the load began."""
    await asyncio.sleep(1)
    for name, number in processes():
        if name == PRESET:
            os.kill(number, signal.SIGKILL)
            print(f"killed the process of {name}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--requests", type=int, default=2000)
    parser.add_argument("--long", type=int, default=10_000)
    parser.add_argument("--clients", type=int, nargs="*", default=[1, 8, 64])
    parser.add_argument("--log", default="load_server.log")
    parser.add_argument("--url", help="a server that runs, instead of our own")
    options = parser.parse_args()
    asked = questions()
    expected, speed = offline(asked, options.requests)
    print(f"embed in one loop: {speed:.0f} a second", flush=True)

    def run(url, clients, requests, **more):
        return asyncio.run(
            load(url, asked, expected, clients, requests, **more)
        )

    with contextlib.ExitStack() as stack:
        url = options.url
        if url is None:
            log = stack.enter_context(open(options.log, "w"))
            url, _ = stack.enter_context(server(log))
        for clients in options.clients:
            found = run(url, clients, options.requests)
            say(f"{clients} clients", found, speed)
        found = run(url, 64, options.requests // 16, inputs=16)
        say("64 clients, 16 inputs each", found, speed, 16)
        say("400 clients", run(url, 400, options.requests), speed)
        if options.long:
            before = processes()
            say("long", run(url, 32, options.long))
            for name, size in processes().items():
                print(f"{name}: {before.get(name, 0):.0f} MB -> {size:.0f} MB")
        say("kill -9", run(url, 16, options.requests, meanwhile=kill_worker))
        started = time.perf_counter()
        while not answers(url):
            time.sleep(0.5)
        print(f"back {time.perf_counter() - started:.0f} s after the load")
        say("afterwards", run(url, 8, 200))


if __name__ == "__main__":
    main()
