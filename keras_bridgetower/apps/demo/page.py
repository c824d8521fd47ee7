"""The page: its tabs and its server."""

import contextlib
import pathlib
import threading

from keras_bridgetower.apps import hosts
from keras_bridgetower.apps.demo.models import DemoModels
from keras_bridgetower.apps.demo.tabs import ask
from keras_bridgetower.apps.demo.tabs import fill
from keras_bridgetower.apps.demo.tabs import look
from keras_bridgetower.apps.demo.tabs import match
from keras_bridgetower.apps.demo.tabs import search
from keras_bridgetower.apps.demo.tabs.other import other_tabs
from keras_bridgetower.apps.demo.tabs.parts import Parts
from keras_bridgetower.presets import table

try:
    import gradio as gr
    import uvicorn
    from fastapi import FastAPI
    from starlette.middleware import Middleware
    from starlette.responses import PlainTextResponse
except ImportError as error:
    raise ImportError(
        'The page needs Gradio: `pip install "keras-bridgetower[demo]"`, then '
        "`pip install --no-deps gradio==6.31.0`, since its metadata require an "
        "older Pillow, which has security holes."
    ) from error

TABS = (ask, match, search, fill, look)
# Bytes of an uploaded file; requests that run, and that wait.
_FILE_BYTES, _AT_ONCE, _WAITING = 30_000_000, 4, 64
_HEAD = """# BridgeTower
A model that looks at a picture and reads a text at the same time. Choose a
tab, then click an example.
"""
_LOADING = "The model {} is being loaded, which takes up to a minute."
_HUES = dict(primary_hue="orange", secondary_hue="orange", neutral_hue="stone")
_FOLDER = pathlib.Path(__file__).parent


@contextlib.contextmanager
def serving(presets, host, port, allowed_hosts=()):
    """Serve the page in a context, which gets its address.

    Args:
        presets: sequence of str, the presets that it offers.
        host: str, address to listen on. Only visitors of a loopback address
            may name other presets.
        port: int, 0 for any that is free.
        allowed_hosts: tuple of str, further host names of the page, such as
            that of a proxy. With any, all visitors count as those of other
            machines. IP addresses, `localhost` and `host` are always allowed.
            Other names could let a web page read this one (DNS rebinding).

    Raises:
        OSError: the port is in use, or the machine has no such address.
        ValueError: one of the presets does not exist.
    """
    local = hosts.is_loopback(host) and not allowed_hosts
    models = DemoModels(presets, local, lambda x: gr.Info(_LOADING.format(x)))
    with (
        hosts.listening(host, port) as listener,
        contextlib.closing(search.IndexShelf(models)) as shelf,
    ):
        parts = Parts(gr, models, shelf)
        blocks = _build(parts)
        blocks.queue(max_size=_WAITING, default_concurrency_limit=_AT_ONCE)
        guard = Middleware(Guard, allowed=(host, *allowed_hosts))
        script = (_FOLDER / "page.js").read_text()
        app = gr.mount_gradio_app(
            FastAPI(openapi_url=None),
            blocks,
            "/",
            theme=gr.themes.Soft(**_HUES),
            css_paths=_FOLDER / "page.css",
            head=f"<script>{script}</script>",
            # Gradio serves no other files, except of the working directory.
            allowed_paths=[str(path) for path, _ in parts.samples["pictures"]],
            max_file_size=_FILE_BYTES,
            footer_links=[],
            app_kwargs={"middleware": [guard]},
            ssr_mode=False,
        )
        # Gradio's `launch` asks its own page, and fails if a slow machine or
        # a proxy does not answer in time.
        server = uvicorn.Server(
            uvicorn.Config(app, log_level="error", timeout_graceful_shutdown=1)
        )
        thread = threading.Thread(target=server.run, args=([listener],))
        thread.start()
        try:
            name = "localhost" if host == "0.0.0.0" else host
            name = f"[{name}]" if ":" in name else name
            yield f"http://{name}:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


def _build(parts):
    with gr.Blocks(
        title="BridgeTower",
        analytics_enabled=False,
        # Seconds between searches for old uploads, and their age.
        delete_cache=(3600, 86400),
    ) as blocks:
        gr.Markdown(_HEAD, elem_classes="kb-head")
        _describe(parts.models.presets)
        # Otherwise a phone hides some tabs behind a menu.
        with gr.Tabs(overflow_behavior="wrap"):
            for tab in (*TABS, *other_tabs(parts.models)):
                with gr.Tab(tab.TITLE):
                    _fill_tab(parts, tab)
    return blocks


def _fill_tab(parts, tab):
    """Add the content of a tab, or a note about the preset that it needs."""
    if parts.models.offered(tab.VERBS) or parts.local:
        tab.add(parts)
        return
    verb = tab.VERBS[0]
    needed = table.shipped_with(verb.heads)[0]
    gr.Markdown(
        f"None of the models of this page can {verb.does}; {needed} can. Start "
        f"the page with it: `keras-bridgetower demo {needed}`."
    )


def _describe(presets):
    """Describe the training data of known presets."""
    known = [table.PRESETS[name] for name in presets if name in table.PRESETS]
    if not known:
        return
    knows = known[0].knows.partition(", and ")[0]
    gr.Markdown(
        f"This page starts with a model that knows {knows}; of anything else "
        "it only guesses.",
        elem_classes="kb-note",
    )
    names = "\n".join(f"- `{one.name}`: {one.knows}" for one in known)
    with gr.Accordion("Models of this page", open=False):
        gr.Markdown(names, elem_classes="kb-note")


class Guard:
    """ASGI middleware that checks the host of a request.

    Args:
        app: the ASGI application behind it.
        allowed: tuple of str, host names of the page.
    """

    def __init__(self, app, allowed):
        self._app, self._allowed = app, allowed

    async def __call__(self, scope, receive, send):
        app = self._app
        if scope["type"] == "http":
            # An empty name is one too.
            if hosts.unknown_host(scope["headers"], self._allowed) is not None:
                app = PlainTextResponse("unknown host", 403)
        await app(scope, receive, send)
