"""The server's application over HTTP in this process, without Ray."""

import asyncio
import contextlib
import socket
import threading

import uvicorn

from keras_bridgetower.serve.application import application
from keras_bridgetower.serve.application import service_of
from keras_bridgetower.serve.models import each_or_refused


class Served:
    """A running server.

    Args:
        url: str, its address.
        admission: the `Admission` that lets requests in.
    """

    def __init__(self, url, admission):
        self.url, self.admission = url, admission


@contextlib.contextmanager
def serving(plan, presets, index=None, key=None):
    """Serve until the context ends.

    Args:
        plan: `Plan`.
        presets: list of `ServedPreset`, in its order.
        index: `ServedIndex`, or None.
        key: str, the API key, or None.
    """
    named = dict(zip(plan.names(), presets, strict=True))

    async def ask(name, verb, asked):
        batches = {}
        for place, one in enumerate(asked):
            batches.setdefault(one.batch, []).append(place)
        results = [None] * len(asked)
        for places in batches.values():
            found = await asyncio.to_thread(
                each_or_refused,
                getattr(named[name], verb),
                [asked[place] for place in places],
            )
            for place, result in zip(places, found, strict=True):
                results[place] = result
        return results

    async def missing():
        return []

    async def find(asked):
        return await asyncio.to_thread(index.find, asked)

    service = service_of(
        plan,
        [preset.facts() for preset in presets],
        ask,
        missing,
        find if index else None,
    )
    admission = application(service, key)
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(admission, log_level="critical")
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}
        )
        thread.start()
        port = listening.getsockname()[1]
        try:
            yield Served(f"http://127.0.0.1:{port}", admission)
        finally:
            server.should_exit = True
            thread.join()
