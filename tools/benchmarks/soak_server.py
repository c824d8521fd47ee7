"""Four attacks on the server together, while honest clients ask it.

Starts `keras-bridgetower serve` with a tiny preset. Attackers send trailers
without end, bodies that hardly come, pictures of 39.7 million pixels, and
progressive JPEGs with thousands of scans. Each second it prints how many
honest answers came, the slowest one, what went wrong, and the memory of the
server. It ends with status 1 if an answer took longer than `--within` seconds,
was refused, or differs from the one before the attack.

    KERAS_BACKEND=torch python tools/benchmarks/soak_server.py --seconds 600
"""

import argparse
import asyncio
import base64
import collections
import contextlib
import io
import json
import os
import sys
import time
import urllib.parse

import numpy as np
from load_server import TOLERANCE
from load_server import Connection
from load_server import processes
from load_server import questions
from load_server import server
from PIL import Image

PRESET = "bridgetower_tiny_emoji_contrastive"
SIDE = 6300
# Seconds between the parts of a slow body.
SLOW = 2.0
ROUTE = (
    b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\n"
)


class Clients:
    """Honest clients; answers must equal those of the quiet server.

    `seconds` has times and mistakes, two lists for each second.
    """

    def __init__(self, url):
        self._url = url
        self._bodies = [
            json.dumps({"input": [sent]}).encode() for _, sent in questions()
        ]
        self._expected = []
        self.seconds = [([], [])]

    async def learn(self):
        """Ask everything once, before the attack."""
        connection = Connection(self._url)
        for body in self._bodies:
            status, answer = await connection.post(body)
            if status != 200:
                raise RuntimeError(f"the quiet server answered {status}")
            self._expected.append(_vector(answer))
        await connection.close()

    async def ask(self, first):
        """One client, which asks without a pause."""
        connection = Connection(self._url)
        place = first
        while True:
            place = (place + 1) % len(self._bodies)
            started = time.perf_counter()
            status, answer = await connection.post(self._bodies[place])
            times, wrong = self.seconds[-1]
            times.append(time.perf_counter() - started)
            if status != 200:
                wrong.append(status)
            elif not np.allclose(
                _vector(answer), self._expected[place], atol=TOLERANCE
            ):
                wrong.append("another vector")


def _vector(answer):
    return np.array(json.loads(answer)["data"][0]["embedding"])


class Attackers:
    """Attackers of four kinds."""

    def __init__(self, url):
        self._url = url
        address = urllib.parse.urlsplit(url)
        self._address = address.hostname, address.port
        self.statuses, self.sent = collections.Counter(), collections.Counter()

    def all(self, slow):
        """Coroutines that run until they are cancelled."""
        pixels, scans = _picture_bodies(), _scan_bodies()
        return [
            *(self._again("trailers", self._trailers) for _ in range(4)),
            *(self._again("slow", self._slow) for _ in range(slow)),
            *(self._pictures("pixels", pixels, n) for n in range(4)),
            *(self._pictures("scans", scans, n) for n in range(4)),
        ]

    async def _again(self, name, attack):
        while True:
            with contextlib.suppress(OSError):
                reader, writer = await asyncio.open_connection(*self._address)
                self.sent[name] += 1
                try:
                    await attack(writer)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    async def _trailers(self, writer):
        writer.write(
            ROUTE + b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n"
        )
        while True:
            writer.write(b"a: b\r\n" * 10_000)
            await writer.drain()
            await asyncio.sleep(0.01)

    async def _slow(self, writer):
        writer.write(ROUTE + b'content-length: 100\r\n\r\n{"inp')
        while True:
            await writer.drain()
            await asyncio.sleep(SLOW)
            writer.write(b" ")

    async def _pictures(self, name, bodies, first):
        connection = Connection(self._url)
        place = first
        while True:
            place = (place + 1) % len(bodies)
            self.sent[name] += 1
            status, _ = await connection.post(bodies[place])
            self.statuses[f"{name} {status}"] += 1
            # What it costs the server, not what it costs this machine.
            await asyncio.sleep(0.05)


def _picture_bodies():
    """Requests with many small files of many pixels."""
    bits = [Image.new("1", (SIDE, SIDE - n), n % 2) for n in range(4)]
    small = [_encoded(image, "PNG") for image in bits]
    color = _encoded(Image.new("RGB", (SIDE, SIDE)), "PNG")
    return [
        # More pixels than a request may have.
        _body([small[n % 4] + bytes(n) for n in range(256)]),
        # As many as it may have.
        _body(small),
        _body([color]),
        # The costliest one that is decoded.
        _body([color + bytes(n) for n in range(4)]),
    ]


def _scan_bodies():
    """Requests with JPEGs whose last scan is repeated."""
    return [
        _body([_scans(1000, 10_000)]),
        _body([_scans(SIDE, 10_000)]),
        _body([_scans(SIDE, 100)]),
        _body([_scans(1000, 100 + n) for n in range(64)]),
    ]


def _scans(side, count):
    data = _encoded(Image.new("RGB", (side, side)), "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def _encoded(image, form, **options):
    file = io.BytesIO()
    image.save(file, form, **options)
    return file.getvalue()


def _body(images):
    inputs = [{"image": base64.b64encode(x).decode()} for x in images]
    return json.dumps({"input": inputs}).encode()


def memory(parent):
    """Resident MB of a process and all below it."""
    return sum(size for size, _ in processes(parent).values())


async def soak(url, process, options):
    """Attack for some time; return the `Clients` and the memory by second."""
    clients, attackers = Clients(url), Attackers(url)
    await clients.learn()
    quiet = memory(process)
    print(f"quiet: {quiet:.0f} MB", flush=True)
    work = [asyncio.create_task(clients.ask(n)) for n in range(options.clients)]
    work += map(asyncio.create_task, attackers.all(options.slow))
    sizes = []
    started = time.perf_counter()
    while (now := time.perf_counter() - started) < options.seconds:
        await asyncio.sleep(1)
        times, wrong = clients.seconds[-1]
        clients.seconds.append(([], []))
        sizes.append(await asyncio.to_thread(memory, process))
        print(
            f"{now:6.1f} s: {len(times):4} answers, slowest "
            f"{max(times, default=0):5.2f} s, {len(wrong)} wrong, "
            f"{sizes[-1]:.0f} MB, load {os.getloadavg()[0]:.1f}",
            flush=True,
        )
        for task in work:
            if task.done():
                task.result()
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)
    print(f"attacks sent: {dict(attackers.sent)}")
    print(f"their answers: {dict(sorted(attackers.statuses.items()))}")
    return clients, sizes


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--slow", type=int, default=200, help="slow bodies")
    parser.add_argument("--within", type=float, default=5.0)
    parser.add_argument("--log", default="soak_server.log")
    parser.add_argument("--serve", nargs=argparse.REMAINDER, default=[])
    options = parser.parse_args()
    with (
        open(options.log, "w") as log,
        server(log, *options.serve, preset=PRESET) as (url, process),
    ):
        clients, sizes = asyncio.run(soak(url, process.pid, options))
    times = [x for second, _ in clients.seconds for x in second]
    wrong = [x for _, second in clients.seconds for x in second]
    p50, p99 = np.percentile(times, (50, 99))
    print(
        f"{len(times)} honest answers in {options.seconds:.0f} s: slowest "
        f"{max(times):.2f} s, p50 {p50:.3f} s, p99 {p99:.2f} s; "
        f"{len(wrong)} wrong {sorted(set(map(str, wrong)))}; server at most "
        f"{max(sizes):.0f} MB, at the end {sizes[-1]:.0f} MB"
    )
    return 1 if wrong or max(times) > options.within else 0


if __name__ == "__main__":
    sys.exit(main())
