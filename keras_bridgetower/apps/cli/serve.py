"""The commands that serve presets over HTTP, and a page to try them."""

import contextlib
import dataclasses
import functools
import json
import logging
import os
import signal
import sys
import threading
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.hosts import is_loopback
from keras_bridgetower.apps.hosts import listening
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.presets.table import preset_name

DEFAULT = Limits()


def _load_in_worker(debug):
    """Import the package quietly in a worker process."""
    if not debug:
        logging.disable(logging.WARNING)
    frameworks.load(debug)


Limit = Annotated[int, typer.Option(min=1, rich_help_panel="Limits")]
Seconds = Annotated[float, typer.Option(rich_help_panel="Limits")]
Hosts = Annotated[list[str] | None, typer.Option("--allowed-host")]


def serve(
    context: typer.Context,
    presets: Annotated[list[str] | None, models.PRESET_NAMES] = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535)] = 8000,
    allowed_hosts: Hosts = None,
    without_key: bool = False,
    store: str | None = None,
    tokens: Annotated[int | None, typer.Option(min=3)] = None,
    replicas: models.Count = 1,
    strict: bool = False,
    body_bytes: Limit = DEFAULT.body_bytes,
    picture_pixels: Limit = DEFAULT.picture_pixels,
    request_pixels: Limit = DEFAULT.request_pixels,
    inputs: Limit = DEFAULT.inputs,
    concurrency: Limit = DEFAULT.concurrency,
    queue: Limit = DEFAULT.queue,
    seconds: Seconds = DEFAULT.seconds,
    body_seconds: Seconds = DEFAULT.body_seconds,
    batch_size: Limit = DEFAULT.batch_size,
    picture_seconds: Seconds = DEFAULT.picture_seconds,
    as_json: models.AsJson = False,
):
    """Serve presets over HTTP: embeddings, rerank, answers, search.

    Its page /docs lists the routes. Clients must send the API key that the
    environment variable KERAS_BRIDGETOWER_API_KEY holds, if it is set. With
    `--host`, other machines need one.
    On SIGTERM it finishes running requests, then it ends.

    Args:
        presets: Presets: names, folders or handles; without any, those that
            other commands open by default. The first that can answer is used
            for requests that name none.
        host: Address to listen on; 0.0.0.0 for all. Other machines need an API
            key.
        allowed_hosts: Host name by which clients may call the server, such as
            that of a proxy. May be given again. By default any name with an
            API key, and without one only localhost and IP addresses.
        without_key: Answer other machines without an API key.
        store: Index of `search index`, for /v1/search.
        tokens: Tokens of an embedded text; else the preset's own.
        replicas: Processes; each holds all presets in memory.
        strict: Reject unknown fields of requests, which answers otherwise name.
        body_bytes: Bytes of a request.
        picture_pixels: Pixels of a picture.
        request_pixels: Pixels of all pictures of a request.
        inputs: Texts or pictures of a request.
        concurrency: Requests worked on at a time.
        queue: Requests that wait; then 429.
        seconds: Time of a request; then 504.
        body_seconds: Time to receive a body; then 408.
        batch_size: Inputs of a forward pass.
        picture_seconds: Processor time to decode a picture.
    """
    presets = presets or models.FAMILY
    for preset in presets:
        models.check_preset(preset)
    names = [field.name for field in dataclasses.fields(Limits)]
    limits = Limits(**{name: context.params[name] for name in names})
    key = os.environ.get(KEY)
    if not (key or without_key or is_loopback(host)):
        raise UsageError(
            f"`--host {host}` lets other machines in, who need an API key. "
            f"Set the environment variable {KEY}, or give `--without-key` to "
            "answer everyone."
        )
    # Without a key, the name that it listens at is allowed too.
    own = () if key or ":" in host else (host,)
    hosts = (*(allowed_hosts or ()), *own)
    names = tuple(preset_name(preset) for preset in presets)
    plan = Plan(names, limits, tokens, store, replicas, hosts, strict)
    value = {"address": f"http://{host}:{port}", "presets": plan.names()}

    def ready():
        rows = [(f"{value['address']}/docs", ", ".join(plan.names()))]
        output.show(as_json, value, ("ready at", "presets"), rows)
        sys.stdout.flush()

    output.note(f"Loading {', '.join(plan.names())}")
    from keras_bridgetower.apps.serve import workers

    load = functools.partial(_load_in_worker, context.obj)
    workers.run(plan, host, port, ready, load)


def demo(
    context: typer.Context,
    presets: Annotated[list[str] | None, models.PRESET_NAMES] = None,
    host: str = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535)] = 7860,
    allowed_hosts: Hosts = None,
    as_json: models.AsJson = False,
):
    """Show a page in the browser to ask, match, search and look inside.

    Prints the address of the page, and runs until Ctrl+C. Nothing leaves this
    machine.

    Args:
        presets: Presets that the page offers. Without any, the installed ones
            that fit a tab.
        host: Address to listen on. With 0.0.0.0 other machines can use the
            page, but cannot open other presets.
        port: Port; 0 for any free one.
        allowed_hosts: Further host name by which the page may be opened, such
            as that of a proxy, whose visitors then cannot open other
            presets. May be given again.
    """
    for preset in presets or ():
        models.check_preset(preset)
    # Before the models are loaded.
    listening(host, port).close()
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        with output.progress("Opening the page"):
            frameworks.load(context.obj)
            from keras_bridgetower.apps.demo import page
            from keras_bridgetower.apps.demo.models import OFFERED

            hosts = tuple(allowed_hosts or ())
            serving = page.serving(presets or OFFERED, host, port, hosts)
            address = stack.enter_context(serving)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        line = json.dumps({"address": address}) if as_json else address
        print(line, flush=True)
        ended.wait()
