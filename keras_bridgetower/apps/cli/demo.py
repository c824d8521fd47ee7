"""The command that serves a page to try models in the browser."""

import json
import signal
import threading
from typing import Annotated

import typer

from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.models import AsJson

HOST, PORT = "127.0.0.1", 7860


def demo(
    context: typer.Context,
    presets: Annotated[
        list[str] | None,
        typer.Argument(
            help="Presets that the page offers. Without any, the small ones "
            "of the package.",
            autocompletion=models.names_starting,
            show_default=False,
        ),
    ] = None,
    host: Annotated[
        str,
        typer.Option(
            help="Address to listen on. With 0.0.0.0 other machines can use "
            "the page, but cannot open other presets or folders."
        ),
    ] = HOST,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port; 0 for any free one.")
    ] = PORT,
    allowed_hosts: Annotated[
        list[str] | None,
        typer.Option(
            "--allowed-host",
            help="Further host name by which the page may be opened, such as "
            "that of a proxy, whose visitors then cannot open other presets "
            "or folders. May be given again.",
        ),
    ] = None,
    as_json: AsJson = False,
):
    """Show a page in the browser to ask, match, search and look inside.

    Prints the address of the page, and runs until Ctrl+C. Nothing leaves this
    machine.
    """
    from keras_bridgetower.apps.demo.starting import check_gradio
    from keras_bridgetower.apps.demo.starting import free_port

    for preset in presets or ():
        models.check_preset(preset)
    port = free_port(host, port)
    check_gradio()
    with output.status("Opening the page"):
        frameworks.load(context.obj)
        from keras_bridgetower.apps.demo import page

        server = page.Page(
            presets or page.OFFERED,
            host,
            port,
            allowed_hosts=tuple(allowed_hosts or ()),
        )
        address = server.open()
    line = json.dumps({"address": address}) if as_json else address
    ended = threading.Event()
    with server:
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda *_: ended.set())
        print(line, flush=True)
        ended.wait()
