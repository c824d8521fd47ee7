"""One page, one browser and large files, for all tests of the page."""

import importlib.util
import os
import pathlib
import shutil
import signal
import subprocess
import sys

import pytest
from drawn_photos import bomb

# Debian's names of the browser; Playwright's own is larger than the package.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
RUN = pathlib.Path(__file__).with_name("page_run.py")
# Milliseconds. A machine may be busy.
PATIENCE = 60_000


@pytest.fixture(scope="session")
def said(tmp_path_factory):
    return tmp_path_factory.mktemp("pages") / "stderr"


@pytest.fixture(scope="session")
def pages(said):
    """Addresses of two running pages, see `page_run.py`."""
    for package in ("gradio", "lancedb"):
        if importlib.util.find_spec(package) is None:
            pytest.skip(f"{package} is missing: the extra `demo`, and Gradio")
    with (
        open(said, "w") as errors,
        subprocess.Popen(
            [sys.executable, RUN],
            # Not a folder of the package, as users start it.
            cwd=said.parent,
            # The page asks nobody, itself neither: here by a proxy that is
            # not there.
            env=os.environ
            | {"PYTHONPATH": os.pathsep.join(sys.path)}
            | dict.fromkeys(("HTTP_PROXY", "http_proxy"), "http://127.0.0.1:9"),
            stdout=subprocess.PIPE,
            stderr=errors,
            text=True,
        ) as running,
    ):
        yield [running.stdout.readline().strip() for _ in range(2)]
        running.send_signal(signal.SIGINT)
        running.communicate(timeout=60)
    words = said.read_text()
    assert running.returncode == 0, words
    # Of other machines, and of exceptions that nobody told the visitor.
    assert "asked the network" not in words and "Traceback" not in words, words


@pytest.fixture(scope="session")
def page(pages):
    return pages[1]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="a browser")
    found = [path for name in BROWSERS if (path := shutil.which(name))]
    if not found:
        pytest.skip("no browser: apt-get install chromium-headless-shell")
    with playwright.sync_playwright() as started:
        # Root, as in a container, has no sandbox.
        arguments = ["--no-sandbox"] if os.geteuid() == 0 else []
        launch = started.chromium.launch
        with launch(executable_path=found[0], args=arguments) as running:
            yield running


@pytest.fixture
def visit(page, browser):
    opened = []

    def visit(size, touch=False, page=page):
        context = browser.new_context(
            viewport={"width": size[0], "height": size[1]},
            has_touch=touch,
            is_mobile=touch,
        )
        context.set_default_timeout(PATIENCE)
        window = context.new_page()
        opened.append(context)
        window.asked = set()
        window.on("request", lambda r: window.asked.add(r.url))
        window.goto(page)
        window.get_by_role("tab", name="Match").wait_for()
        return window

    yield visit
    for context in opened:
        context.close()


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """Files that no visitor should choose, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("files")
    text, large = folder / "notes.png", folder / "large.png"
    text.write_text("no picture at all")
    bomb(large)
    return {"text": text, "large": large}
