"""Four attacks on the server together, while honest clients ask it.

Starts `keras-bridgetower serve` with two tiny presets. Attackers send endless
trailers, slow bodies, pictures that are expensive to decode, and 256 pictures
at a time to re-rank. Prints the honest clients' answers and the server's memory
every few seconds. Ends with status 1 if an answer took more than `--within`
seconds, was refused, or differs from the offline one. Other options go to the
server.

    KERAS_BACKEND=torch python tools/benchmarks/soak_server.py --seconds 600
"""

import argparse
import asyncio
import collections
import contextlib
import json
import random
import sys
import time
import urllib.parse

import load_server as server
from PIL import Image

RERANKS = "bridgetower_tiny_easy_retrieval"
SIDE = 6300
HEAD = (
    b"POST /v1/embeddings HTTP/1.1\r\nhost: localhost\r\n"
    b"content-type: application/json\r\n"
)
# The start of a request, what follows again and again, and after how long.
TRAILERS = (
    "trailers",
    b"transfer-encoding: chunked\r\n\r\n1\r\n{\r\n0\r\n",
    b"a: b\r\n" * 10_000,
    0.01,
)
SLOW = ("slow bodies", b'content-length: 100\r\n\r\n{"inp', b" ", 2.0)


async def attack(url, slow, bombs, counts):
    """Attack until it is cancelled, and count the answers."""
    address = urllib.parse.urlsplit(url)

    async def stream(name, start, part, pause):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection(
                    address.hostname, address.port
                )
                counts[name] += 1
                try:
                    writer.write(HEAD + start)
                    while True:
                        writer.write(part)
                        await writer.drain()
                        await asyncio.sleep(pause)
                finally:
                    writer.transport.abort()
            await asyncio.sleep(0.1)

    async def post(client, route, bodies):
        while True:
            for name in random.sample(list(bodies), len(bodies)):
                status, _ = await server.post(client, url + route, bodies[name])
                counts[f"{name} {status}"] += 1
                # What it costs the server, not what it costs this machine.
                await asyncio.sleep(0.05)

    async with server.session() as client:
        await asyncio.gather(
            *(stream(*TRAILERS) for _ in range(4)),
            *(stream(*SLOW) for _ in range(slow)),
            *(post(client, server.ROUTE, bombs) for _ in range(8)),
            *(post(client, "/v1/rerank", rerank()) for _ in range(4)),
        )


def bodies_of_pictures():
    """Small files of many pixels, and JPEGs whose last scan is repeated."""
    bits = server.encoded(Image.new("1", (SIDE, SIDE)), "PNG")
    color = server.encoded(Image.new("RGB", (SIDE, SIDE)), "PNG")
    found = {
        "too many pixels": [bits + bytes(n) for n in range(256)],
        "most pixels": [color + bytes(n) for n in range(4)],
        "10,000 scans": [scans(1000, 10_000)],
        "10,000 large scans": [scans(SIDE, 10_000)],
        "64 times 100 scans": [scans(1000, 100 + n) for n in range(64)],
    }
    return {
        name: json.dumps({"input": list(map(server.as_input, files))}).encode()
        for name, files in found.items()
    }


def scans(side, count):
    image = Image.new("RGB", (side, side))
    data = server.encoded(image, "JPEG", progressive=True)
    last = data[data.rindex(b"\xff\xda") : -2]
    return data[:-2] + last * (count - data.count(b"\xff\xda")) + data[-2:]


def rerank():
    """As many pairs for the matching head as a request may have."""
    image = server.encoded(Image.new("RGB", (64, 64)), "PNG")
    documents = [server.as_input(image + bytes(n)) for n in range(256)]
    sent = {"query": "a red circle", "documents": documents, "model": RERANKS}
    return {"rerank": json.dumps(sent).encode()}


async def soak(url, process, options, asked, expected):
    """Attack for some time. Return True if all honest answers were good."""
    bombs, counts, good = bodies_of_pictures(), collections.Counter(), True
    work = attack(url, options.slow, bombs, counts)
    attacking, started = asyncio.create_task(work), time.monotonic()
    while (now := time.monotonic() - started) < options.seconds:
        turn = server.until(5)
        found = await server.load(url, asked, expected, options.clients, turn)
        sizes = [size for size, _ in server.processes(process.pid).values()]
        server.say(f"{now:6.1f} s", found, f"{sum(sizes):.0f} MB")
        good &= set(found["statuses"]) == {200} and not found["wrong"]
        good &= max(found["times"]) <= options.within
        if attacking.done():
            attacking.result()
    attacking.cancel()
    await asyncio.gather(attacking, return_exceptions=True)
    print(f"attacks: {dict(sorted(counts.items()))}")
    return good


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--slow", type=int, default=200, help="slow bodies")
    parser.add_argument("--within", type=float, default=5.0)
    options, served = parser.parse_known_args()
    asked = server.questions()
    expected = server.Offline(asked, server.KINDS).vectors
    with (
        open("soak_server.log", "w") as log,
        server.server(log, RERANKS, *served) as (url, process),
    ):
        good = asyncio.run(soak(url, process, options, asked, expected))
    print("all honest answers were good" if good else "FAILED")
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
