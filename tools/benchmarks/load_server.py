"""Load on the server: throughput, times, mix-ups, memory, and a killed worker.

Starts `keras-bridgetower serve` with a tiny preset, sends it requests from 1,
8 and 64 clients, and compares each answer with the offline one. Its own loop
over `embed` runs before and after each turn of the server.

    KERAS_BACKEND=torch python tools/benchmarks/load_server.py
    ... --requests 200 --long 0      # a quick look
    ... --engine ray
    ... --minutes 10                 # at the end, requests for ten minutes
"""

import argparse
import asyncio
import contextlib
import os
import pathlib
import signal
import socket
import subprocess
import sys
import time
import urllib.request

import numpy as np
from load_client import KINDS
from load_client import PRESET
from load_client import load
from load_client import questions
from load_client import until

import keras_bridgetower as kbt


class Offline:
    """The same questions to `embed` in this process.

    Args:
        asked: as `questions` returns them.
        requests: int, rows of a loop.
    """

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
        """Rows in a second, in batches of 32 of the same kind."""
        started = time.perf_counter()
        for given in self._columns:
            self._task.embed(**given, batch_size=32)
        return self._requests / (time.perf_counter() - started)


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
        with urllib.request.urlopen(f"{url}/ready", timeout=5) as answer:
            return answer.status == 200
    except OSError:
        return False


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


def processes(parent):
    """Resident MB of all processes below one, by their ids."""
    parents, sizes = {}, {}
    for folder in pathlib.Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            # The name of a program, in brackets, may hold spaces.
            state = (folder / "stat").read_text().rpartition(")")[2].split()
            pages = int((folder / "statm").read_text().split()[1])
            parents[int(folder.name)] = int(state[1])
            sizes[int(folder.name)] = pages * os.sysconf("SC_PAGESIZE") / 1e6
    below, new = set(), {parent}
    while new:
        new = {one for one, above in parents.items() if above in new}
        below |= new
    return {one: sizes[one] for one in below}


def worker(parent):
    """The id of the process with the models, which is the largest."""
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
    parser.add_argument("--url", help="a server that runs, instead of our own")
    options = parser.parse_args()
    asked = questions()
    offline = Offline(asked, options.requests)

    def run(url, clients, numbers, **more):
        work = load(url, asked, offline.vectors, clients, numbers, **more)
        return asyncio.run(work)

    def by_turns(name, url, clients, requests, inputs=1):
        before = offline.speed()
        found = run(url, clients, range(requests), inputs=inputs)
        after = offline.speed()
        print(f"embed in a loop: {before:.0f}, {after:.0f} a second")
        say(name, found, (before + after) / 2, inputs)

    def alone(url):
        for clients in options.clients:
            by_turns(f"{clients} clients", url, clients, options.requests)
        by_turns(
            "64 clients, 16 inputs", url, 64, options.requests // 16, inputs=16
        )

    if options.url:
        alone(options.url)
        return
    with (
        open(options.log, "w") as log,
        server(log, "--engine", options.engine) as (url, process),
    ):
        alone(url)
        say("400 clients", run(url, 400, range(options.requests)))

        def size():
            return processes(process.pid)[worker(process.pid)]

        for _ in range(2 if options.long else 0):
            before = size()
            say("long", run(url, 32, range(options.long)))
            print(f"the process with the models: {before:.0f}, {size():.0f} MB")
        for minute in range(options.minutes):
            say(f"minute {minute + 1}", run(url, 32, until(60)))
            print(f"the process with the models: {size():.0f} MB", flush=True)
        say(
            "kill -9",
            run(
                url,
                16,
                range(options.requests),
                also=lambda: killed(process.pid),
            ),
        )
        started = time.perf_counter()
        while not answers(url):
            time.sleep(0.5)
        print(f"back {time.perf_counter() - started:.0f} s after the load")
        say("afterwards", run(url, 8, range(200)))


if __name__ == "__main__":
    main()
