"""Run the application of a worker over HTTP in a thread of this process."""

import concurrent.futures
import contextlib
import socket
import threading
import types

import uvicorn

from keras_bridgetower.apps.serve.batching import BatchedPreset
from keras_bridgetower.apps.serve.decoders import Decoders
from keras_bridgetower.apps.serve.workers import http_settings
from keras_bridgetower.apps.serve.workers import local_application


@contextlib.contextmanager
def serving(plan, presets, index=None, key=None):
    with (
        concurrent.futures.ThreadPoolExecutor(1) as models,
        contextlib.closing(Decoders(plan.limits)) as decoders,
    ):
        searched = plan.searched()
        named = {
            name: BatchedPreset(
                preset,
                index if name == searched else None,
                plan.limits,
                models,
                decoders,
            )
            for name, preset in zip(plan.names(), presets, strict=True)
        }
        admission = local_application(plan, named, key)
        with listening(admission, **http_settings(plan.limits)) as url:
            yield types.SimpleNamespace(url=url, admission=admission)


@contextlib.contextmanager
def listening(app, **settings):
    """Serve an ASGI application at the address that it yields."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, **settings)
        server = uvicorn.Server(config)
        thread = threading.Thread(
            target=server.run, kwargs={"sockets": [listening]}
        )
        thread.start()
        port = listening.getsockname()[1]
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            server.should_exit = True
            thread.join()
