"""Applications for workers of the tests, without Keras."""

import asyncio
import os
import pathlib

from keras_bridgetower.apps.serve import workers


def refuse():
    raise ValueError("`preset` must be whole. Received: half of it")


async def answer_once_loaded(scope, receive, send):
    """A server that starts when a file exists, and then answers."""
    if scope["type"] == "lifespan":
        await receive()
        while not pathlib.Path(os.environ["LOADED"]).exists():
            await asyncio.sleep(0.05)
        await asyncio.to_thread(workers.take_over)
        await send({"type": "lifespan.startup.complete"})
        await receive()
        await send({"type": "lifespan.shutdown.complete"})
        return
    await send({"type": "http.response.start", "status": 200})
    await send({"type": "http.response.body", "body": b"loaded"})
