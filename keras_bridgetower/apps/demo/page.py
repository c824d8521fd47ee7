"""The page: its tabs, the server that shows it, and what it rejects."""

import logging
import os

from starlette.middleware import Middleware
from starlette.responses import PlainTextResponse

from keras_bridgetower.apps.demo import fragments
from keras_bridgetower.apps.demo.inputs import RefusedInput
from keras_bridgetower.apps.demo.inputs import check_picture
from keras_bridgetower.apps.demo.models import OFFERED
from keras_bridgetower.apps.demo.models import DemoModels
from keras_bridgetower.apps.demo.starting import free_port
from keras_bridgetower.apps.demo.starting import gradio
from keras_bridgetower.apps.demo.tabs import ask
from keras_bridgetower.apps.demo.tabs import fill
from keras_bridgetower.apps.demo.tabs import look
from keras_bridgetower.apps.demo.tabs import match
from keras_bridgetower.apps.demo.tabs import search
from keras_bridgetower.apps.demo.tabs.other import other_tabs
from keras_bridgetower.apps.demo.tabs.parts import Parts
from keras_bridgetower.apps.demo.tabs.parts import lacking
from keras_bridgetower.apps.demo.tabs.search import IndexShelf
from keras_bridgetower.apps.hosts import check_hosts
from keras_bridgetower.apps.hosts import is_known_host
from keras_bridgetower.apps.hosts import is_loopback
from keras_bridgetower.presets.table import EMOJI
from keras_bridgetower.presets.table import PHOTOGRAPHS
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import SHAPES
from keras_bridgetower.presets.table import shipped_with

TABS = (ask, match, search, fill, look)
_HOUR, _DAY = 3600, 86400
_IN_SHORT = {
    EMOJI: "emoji",
    SHAPES: "drawings of one colored shape",
    PHOTOGRAPHS: "everyday photographs",
}
_GUESS = "On any other picture they only guess."
_HEAD = """# BridgeTower
A model that looks at a picture and reads a text at the same time. Choose a
tab, then click an example.
"""


class Page:
    """A server of the page, from `open` to `close`, or as a context manager.

    Args:
        presets: sequence of str, the presets that it offers, as
            `from_preset` takes them. By default the small ones of the
            package.
        host: str, address to listen on. Only visitors of a loopback address
            may name other presets and folders of pictures.
        port: int, 0 for any that is free.
        limits: `Limits`, or None for the usual ones.
        allowed_hosts: tuple of str, further host names of the page, such as
            that of a proxy. With any, all visitors count as those of other
            machines. IP addresses, `localhost` and `host` are always allowed.
            Other names could let a web page read this one (DNS rebinding).

    Raises:
        ImportError: Gradio is not installed.
        ValueError: one of the presets does not exist, or hosts that are not a
            tuple of names.

    Example:

    ```python
    with Page(["bridgetower_tiny_easy_vqa"], port=0) as page:
        page.open()  # "http://127.0.0.1:43017"
    ```
    """

    def __init__(
        self,
        presets=OFFERED,
        host="127.0.0.1",
        port=7860,
        limits=None,
        allowed_hosts=(),
    ):
        check_hosts("allowed_hosts", allowed_hosts)
        self._gradio = gradio()
        self.host, self.port = host, port
        self._hosts = (host, *allowed_hosts)
        local = is_loopback(host) and not allowed_hosts
        self.opened = DemoModels(presets, local, limits)
        self.shelf = IndexShelf(self.opened)
        self._blocks = self._built()

    def open(self):
        """Start the server.

        Returns:
            str, the address of the page.

        Raises:
            AddressInUse: another program listens there, or the machine has no
                such address.
        """
        limits = self.opened.limits
        port = free_port(self.host, self.port)
        folder = self._gradio.utils.get_upload_folder()
        guard = Middleware(
            Guard, folder=folder, limits=limits, hosts=self._hosts
        )
        self._blocks.queue(
            max_size=limits.waiting, default_concurrency_limit=limits.at_once
        )
        self._blocks.launch(
            server_name=self.host,
            server_port=port,
            theme=fragments.theme(self._gradio),
            css=fragments.CSS,
            max_file_size=limits.file_bytes,
            footer_links=[],
            app_kwargs={"middleware": [guard]},
            prevent_thread_lock=True,
            quiet=True,
            # Send nothing to other machines.
            share=False,
            ssr_mode=False,
            pwa=False,
            mcp_server=False,
            enable_monitoring=False,
            inbrowser=False,
        )
        return self._blocks.local_url.rstrip("/")

    def close(self):
        """Stop the server, and delete its indexes."""
        self._blocks.close(verbose=False)
        self.shelf.close()

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def _built(self):
        gr = self._gradio
        parts = Parts(gr, self.opened, self.shelf)
        with gr.Blocks(
            title="BridgeTower",
            analytics_enabled=False,
            # Seconds between searches for old uploads, and their age. Others
            # are deleted when the page is closed.
            delete_cache=(_HOUR, _DAY),
        ) as blocks:
            gr.Markdown(_HEAD, elem_classes="kb-head")
            described = _describe(self.opened.presets)
            if described:
                sentence, names = described
                gr.Markdown(sentence, elem_classes="kb-note")
                with gr.Accordion("Models of this page", open=False):
                    gr.Markdown(names, elem_classes="kb-note")
            # Otherwise a phone hides some tabs behind a menu.
            with gr.Tabs(overflow_behavior="wrap"):
                for tab in (*TABS, *other_tabs(self.opened)):
                    with gr.Tab(tab.TITLE):
                        _fill_tab(parts, tab)
        _refuse_malformed_calls(gr, blocks)
        return blocks


def _refuse_malformed_calls(gr, blocks):
    """Reject calls whose inputs Gradio cannot read, without a traceback."""
    read_inputs = blocks.preprocess_data

    async def checked(function, *args):
        try:
            if function.fn is None:
                raise TypeError("the event runs in the browser alone")
            return await read_inputs(function, *args)
        except Exception as error:
            LOG.info("A call was refused: %r", error)
            message = "The page cannot read this request. Reload the page."
            raise gr.Error(message, print_exception=False) from error

    blocks.preprocess_data = checked


def _fill_tab(parts, tab):
    """Add the content of a tab, or name the preset that it needs."""
    if parts.opened.offered(tab.VERBS) or parts.local:
        tab.add(parts)
        return
    needed = shipped_with(tab.VERBS[0].heads)[0]
    parts.gr.Markdown(
        f"{lacking(tab.VERBS)} Start the page with it: "
        f"`keras-bridgetower demo {needed}`."
    )


def _describe(presets):
    """Return the training data of known presets, as a sentence and by name."""
    known = [PRESETS[name] for name in presets if name in PRESETS]
    if not known:
        return None
    worlds = {_IN_SHORT.get(preset.knows, preset.knows) for preset in known}
    listed = " and ".join(sorted(worlds, reverse=True))
    names = "\n".join(f"- `{one.name}`: {one.knows}" for one in known)
    return f"The models of this page know {listed}. {_GUESS}", names


LOG = logging.getLogger("keras_bridgetower.apps.demo")
_FILE = "/file="
_FAILED, _UNKNOWN_HOST, _TOO_LARGE = 400, 403, 413


class Guard:
    """ASGI middleware that checks the host and the file of a request.

    Errors of Gradio about malformed requests are logged in one line.

    Args:
        app: the ASGI application behind it.
        folder: path of the folder of uploads. Other files are not checked.
        limits: `Limits`.
        hosts: tuple of str, host names of the page.
    """

    def __init__(self, app, folder, limits, hosts):
        self._app = app
        self._folder = os.path.realpath(folder)
        self._limits = limits
        self._hosts = hosts

    async def __call__(self, scope, receive, send):
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started = False

        async def send_response(message):
            nonlocal started
            started = True
            await send(message)

        try:
            app = self._app
            if not self._knows(scope["headers"]):
                app = PlainTextResponse("unknown host", _UNKNOWN_HOST)
            elif not self._may_be_shown(scope["path"]):
                app = PlainTextResponse("too large", _TOO_LARGE)
            await app(scope, receive, send_response)
        except Exception as error:
            # Of Gradio itself: functions of the page handle their errors.
            LOG.info("A request failed: %s %r", scope["path"], error)
            if not started:
                failed = PlainTextResponse("bad request", _FAILED)
                await failed(scope, receive, send)

    def _knows(self, headers):
        return all(
            is_known_host(value.decode("latin-1"), self._hosts)
            for name, value in headers
            if name == b"host"
        )

    def _may_be_shown(self, path):
        _, file, name = path.partition(_FILE)
        if not file or "\0" in name:
            return True
        name = os.path.realpath(name)
        uploaded = name.startswith(self._folder + os.sep)
        if not (uploaded and os.path.isfile(name)):
            return True
        try:
            check_picture(name, self._limits)
        except RefusedInput:
            return False
        return True
