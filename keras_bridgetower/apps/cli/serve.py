"""The commands that serve presets over HTTP, and a page to try them."""

import contextlib
import enum
import functools
import json
import logging
import os
import signal
import sys
import threading

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.errors import UsageError
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.apps.cli.models import argument
from keras_bridgetower.apps.cli.models import option
from keras_bridgetower.apps.hosts import is_loopback
from keras_bridgetower.apps.hosts import listening
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.presets.table import preset_name
from keras_bridgetower.presets.verbs import BUILT_IN

DEFAULT = Limits()
HEADS = tuple(head for verb in BUILT_IN.values() for head in verb.heads)


class Engine(enum.StrEnum):
    """Program that runs the processes of a server."""

    uvicorn = "uvicorn"
    ray = "ray"


def _by_uvicorn(plan, host, port, ready, debug):
    from keras_bridgetower.apps.serve import workers

    load = functools.partial(_load_in_worker, debug)
    workers.run(plan, host, port, ready, load)


def _load_in_worker(debug):
    """Import the package quietly in a worker process."""
    if not debug:
        logging.disable(logging.WARNING)
    frameworks.load(debug)


def _by_ray(plan, host, port, ready, debug):
    from keras_bridgetower.apps.serve import on_ray

    on_ray.run(plan, host, port, ready, debug)


ENGINES = {Engine.uvicorn: _by_uvicorn, Engine.ray: _by_ray}


def _limit(help):
    return option(int, help, min=1, rich_help_panel="Limits")


def _seconds(help):
    return option(float, help, rich_help_panel="Limits")


def _check_key(host, key, without_key):
    """Raise an error if other machines were allowed by mistake."""
    if key and without_key:
        raise UsageError(
            f"`--without-key` needs an environment without {KEY}, which is "
            "set. Unset it, or leave the option out."
        )
    if not (key or without_key or is_loopback(host)):
        raise UsageError(
            f"`--host {host}` lets other machines in, who need an API key. "
            f"Set the environment variable {KEY}, or give `--without-key` to "
            "answer everyone."
        )


def serve(
    context: typer.Context,
    presets: argument(
        list[str],
        "Presets: names, folders or handles. The first that can answer is used "
        "for requests that name none.",
        autocompletion=models.names_starting,
    ),
    host: option(
        str,
        "Address to listen on; 0.0.0.0 for all. Other machines need an API "
        "key.",
    ) = "127.0.0.1",
    port: option(int, None, min=1, max=65535) = 8000,
    allowed_hosts: option(
        list[str] | None,
        "Host name by which clients may call the server, such as that of a "
        "proxy. May be given again. By default any name with an API key, and "
        "without one only localhost and IP addresses.",
        "--allowed-host",
    ) = None,
    without_key: option(
        bool, "Answer other machines without an API key.", "--without-key"
    ) = False,
    store: option(
        str | None, "Index of `search index`, for /v1/search."
    ) = None,
    tokens: option(
        int | None, "Tokens of an embedded text; else the preset's own.", min=3
    ) = None,
    engine: option(
        Engine,
        "Program that runs the processes: uvicorn, with all presets in each; "
        "or Ray Serve, with one preset in each.",
    ) = Engine.uvicorn,
    replicas: option(
        int, "Processes; each holds its presets in memory.", min=1
    ) = 1,
    body_bytes: _limit("Bytes of a request.") = DEFAULT.body_bytes,
    picture_pixels: _limit("Pixels of a picture.") = DEFAULT.picture_pixels,
    request_pixels: _limit(
        "Pixels of all pictures of a request."
    ) = DEFAULT.request_pixels,
    inputs: _limit("Texts or pictures of a request.") = DEFAULT.inputs,
    concurrency: _limit("Requests worked on at a time.") = DEFAULT.concurrency,
    queue: _limit("Requests that wait; then 429.") = DEFAULT.queue,
    seconds: _seconds("Time of a request; then 504.") = DEFAULT.seconds,
    body_seconds: _seconds(
        "Time to receive a body; then 408."
    ) = DEFAULT.body_seconds,
    batch_size: _limit("Inputs of a forward pass.") = DEFAULT.batch_size,
    picture_hosts: option(
        list[str] | None,
        "Host from which pictures are fetched by URL. May be given again; "
        "without it URLs are refused.",
        "--picture-host",
        rich_help_panel="Limits",
    ) = None,
    picture_seconds: _seconds(
        "Time to fetch a picture, and processor time to decode one."
    ) = DEFAULT.picture_seconds,
    picture_bytes: _limit(
        "Bytes of a fetched picture."
    ) = DEFAULT.picture_bytes,
    as_json: AsJson = False,
):
    """Serve presets over HTTP: embeddings, rerank, answers, search.

    Its page /docs lists the routes. Clients must send the API key that the
    environment variable KERAS_BRIDGETOWER_API_KEY holds, if it is set. With
    `--host`, other machines need one.
    On SIGTERM it finishes running requests, then it ends.
    """
    for preset in presets:
        models.check_preset(preset, HEADS)
    limits = Limits(
        body_bytes=body_bytes,
        picture_bytes=picture_bytes,
        picture_pixels=picture_pixels,
        request_pixels=request_pixels,
        inputs=inputs,
        concurrency=concurrency,
        queue=queue,
        seconds=seconds,
        body_seconds=body_seconds,
        batch_size=batch_size,
        picture_hosts=tuple(picture_hosts or ()),
        picture_seconds=picture_seconds,
    )
    key = os.environ.get(KEY)
    _check_key(host, key, without_key)
    # Without a key, the name that it listens at is allowed too.
    own = () if key or ":" in host else (host,)
    hosts = (*(allowed_hosts or ()), *own)
    names = tuple(preset_name(preset) for preset in presets)
    plan = Plan(names, limits, tokens, store, replicas, hosts)
    value = {"address": f"http://{host}:{port}", "presets": plan.names()}

    def ready():
        rows = [(f"{value['address']}/docs", ", ".join(plan.names()))]
        output.show(as_json, value, ("ready at", "presets"), rows)
        sys.stdout.flush()

    output.note(f"Loading {', '.join(plan.names())}")
    ENGINES[engine](plan, host, port, ready, context.obj)


HOST, PORT = "127.0.0.1", 7860


def demo(
    context: typer.Context,
    presets: argument(
        list[str] | None,
        "Presets that the page offers. Without any, the small ones of the "
        "package.",
        autocompletion=models.names_starting,
        show_default=False,
    ) = None,
    host: option(
        str,
        "Address to listen on. With 0.0.0.0 other machines can use the page, "
        "but cannot open other presets or folders.",
    ) = HOST,
    port: option(int, "Port; 0 for any free one.", min=0, max=65535) = PORT,
    allowed_hosts: option(
        list[str] | None,
        "Further host name by which the page may be opened, such as that of a "
        "proxy, whose visitors then cannot open other presets or folders. May "
        "be given again.",
        "--allowed-host",
    ) = None,
    as_json: AsJson = False,
):
    """Show a page in the browser to ask, match, search and look inside.

    Prints the address of the page, and runs until Ctrl+C. Nothing leaves this
    machine.
    """
    for preset in presets or ():
        models.check_preset(preset)
    # Before the models are loaded.
    listening(host, port).close()
    ended = threading.Event()
    with contextlib.ExitStack() as stack:
        with output.status("Opening the page"):
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
