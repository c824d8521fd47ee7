"""The page in a real browser: every tab, phone, keyboard, bad files."""

import importlib.util
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import sys

import pytest
from builders import FASTEST
from drawn_photos import bomb
from PIL import Image

pytestmark = FASTEST
# Debian's names of the browser; Playwright's own is larger than the package.
BROWSERS = ("chromium-headless-shell", "chromium", "google-chrome")
RUN = pathlib.Path(__file__).with_name("page_run.py")
LOW_CONTRAST = pathlib.Path(__file__).with_name("low_contrast.js").read_text()
# Milliseconds. A machine may be busy.
PATIENCE = 60_000
DESKTOP, PHONE = (1180, 860), (390, 844)
SHOWN = ".kb-answer:visible, .kb-words:visible, .kb-table:visible"
# The whole answer is visible, or it starts in the upper part of the window.
IN_VIEW = """(shown) => {
  const { top, bottom } = shown.getBoundingClientRect();
  return top >= 0 && (bottom <= innerHeight || top < 0.7 * innerHeight);
}"""
# By tab: an example that one clicks, and what it must show.
TABS = {
    "Ask": ("what kind of thing is it?", "sea animal"),
    "Match": ("One true text for each picture", "98 %"),
    "Search": ("something sweet", "cake"),
    "Fill the blank": ("a ___ apple", "red apple"),
    "Look inside": (
        "what color is it mostly?",
        "mostly?” · whole text · layer 2 of 2",
    ),
}


@pytest.fixture(scope="module")
def pages(tmp_path_factory):
    """Addresses of two running pages, see `page_run.py`."""
    said = tmp_path_factory.mktemp("pages") / "stderr"
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


@pytest.fixture(scope="module")
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


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Files that no visitor should choose, by what is wrong with them."""
    folder = tmp_path_factory.mktemp("files")
    text, large = folder / "notes.png", folder / "large.png"
    text.write_text("no picture at all")
    bomb(large)
    return {"text": text, "large": large}


def opened(window, name):
    """The panel of a tab, once it is chosen."""
    window.get_by_role("tab", name=name, exact=True).click()
    return panel_of(window)


def panel_of(window):
    return window.locator("[role=tabpanel]:visible")


def result(panel):
    """The text of a panel's result and of its titles, once there is one."""
    panel.locator(SHOWN).first.wait_for()
    texts = panel.locator(".block.kb-result").all_inner_texts()
    return "\n".join([*texts, *panel.locator(".kb-label").all_inner_texts()])


def message(window):
    """The text of the one error that came, which is then closed."""
    toast = window.locator(".toast-body.error")
    toast.wait_for()
    said = toast.inner_text()
    toast.locator(".toast-close").click()
    toast.wait_for(state="detached")
    assert "Traceback" not in said and "/tmp" not in said
    return said


def test_each_tab_by_a_click(visit, page):
    window = visit(PHONE, touch=True)
    # Colors change at once between themes.
    window.add_style_tag(content="* { transition: none !important; }")
    for name, (example, told) in TABS.items():
        panel = opened(window, name)
        panel.get_by_role("button", name=example).click()
        assert told in result(panel)
        # Nothing has to be moved sideways to be read.
        width = window.evaluate("document.documentElement.scrollWidth")
        assert width == PHONE[0], name
        # The answer is seen after the click, also on a phone.
        answer = panel.locator(SHOWN).first.element_handle()
        window.wait_for_function(IN_VIEW, arg=answer)
        for theme in ("remove", "add"):
            window.evaluate(f"document.body.classList.{theme}('dark')")
            assert window.evaluate(LOW_CONTRAST) == [], (name, theme)
        window.evaluate("document.body.classList.remove('dark')")
        shown = panel.locator(".block.kb-result").bounding_box()
        assert 0 <= shown["x"] and shown["x"] + shown["width"] <= PHONE[0]
    outside = {u for u in window.asked if not u.startswith(f"{page}/")}
    assert {u for u in outside if not u.startswith(("data:", "blob:"))} == set()


def removing(panel):
    """The button that removes a picture."""
    clear = panel.get_by_role("button", name="Clear")
    return panel.get_by_role("button", name="Remove").or_(clear).first


def test_new_input_clears_the_answer(visit, files):
    window = visit(DESKTOP)
    panel = panel_of(window)
    example = panel.get_by_role("button", name="what kind of thing is it?")
    question = panel.get_by_label("Question")
    looked = panel.locator("img[src*='image.png']")
    title = panel.get_by_text("Where it looked (orange)")

    def answered():
        assert result(panel).startswith("sea animal")
        looked.wait_for()
        assert title.inner_text().endswith(
            "“what kind of thing is it?” – “sea animal”"
        )

    def cleared():
        panel.get_by_text("The answer appears here.").wait_for()
        looked.wait_for(state="detached")
        assert panel.locator(SHOWN).count() == 0
        assert title.inner_text() == "Where it looked (orange)"

    example.click()
    answered()
    question.press_sequentially("?")
    cleared()
    # An answer that was asked before does not come after it.
    with window.expect_request(re.compile("queue/join")):
        question.press("Enter")
    question.press_sequentially("?")
    window.wait_for_timeout(2000)
    cleared()
    example.click()
    answered()
    removing(panel).click()
    cleared()
    example.click()
    answered()
    panel.locator("input[type=file]").set_input_files(files["text"])
    cleared()

    panel = opened(window, "Search")
    panel.get_by_role("button", name="music").click()
    assert result(panel).startswith("guitar")
    found = panel.locator(".kb-found img")
    found.first.wait_for()
    panel.get_by_label("What do you look for?").press_sequentially("s")
    panel.get_by_text("The result appears here.").wait_for()
    found.first.wait_for(state="detached")


def test_bad_files_and_texts(visit, files):
    window = visit(DESKTOP)
    panel = panel_of(window)
    ask = panel.get_by_role("button", name="Ask", exact=True)
    question = panel.get_by_label("Question")
    ask.click()
    assert "Write a question first" in message(window)
    question.fill("what is it?")
    ask.click()
    assert "Choose a picture first" in message(window)
    # Files with the names of pictures; one says it has 10^10 pixels.
    for name, told in (
        ("text", "is not a picture that can be read"),
        ("large", "is too large"),
    ):
        panel.locator("input[type=file]").set_input_files(files[name])
        remove = removing(panel)
        remove.wait_for()
        ask.click()
        said = message(window)
        assert told in said and files[name].name in said
        remove.click()
    panel.get_by_role("button", name="what color is it mostly?").click()
    assert result(panel).startswith("red")


def test_page_for_other_machines(visit, pages):
    """It offers one preset, and opens no other."""
    window = visit(DESKTOP, page=pages[0])
    assert (
        "keras-bridgetower demo bridgetower_tiny_emoji_vqa"
        in opened(window, "Ask").inner_text()
    )
    panel = opened(window, "Fill the blank")
    panel.get_by_role("button", name="a ___ apple").click()
    assert "is apple" in result(panel)


def test_hosts_of_the_page(pages, page):
    httpx = pytest.importorskip("httpx", reason="the extra `demo`")
    for host, status in (("evil.example", 403), ("", 403), ("[::1]", 200)):
        for url in (f"{page}/config", *pages):
            answer = httpx.get(url, headers={"Host": host}, timeout=60)
            assert answer.status_code == status, (host, url)


API = "/gradio_api"


def test_uploads_replace_the_examples(page, pages, tmp_path):
    """In each gallery that is filled in; and the page says what it knows."""
    httpx = pytest.importorskip("httpx", reason="the extra `demo`")
    path = tmp_path / "own.png"
    Image.new("RGB", (8, 8)).save(path)
    with httpx.Client(base_url=page, timeout=60) as client:
        [own] = client.post(
            f"{API}/upload", files={"files": path.read_bytes()}
        ).json()
        config = client.get("/config").json()
        galleries = {
            one["id"]: one["props"]["value"]
            for one in config["components"]
            if one["type"] == "gallery" and one["props"].get("value")
        }
        assert len(galleries) == 2
        uploads = {
            target[0]: function
            for function in config["dependencies"]
            for target in function["targets"]
            if target[1] == "upload" and function["outputs"] == [target[0]]
        }
        for number, examples in galleries.items():
            new = {"image": {**examples[0]["image"], "path": own}}
            body = {
                "fn_index": uploads[number]["id"],
                "session_hash": f"upload{number}",
                "data": [[*examples, new | {"caption": None}]],
            }
            client.post(f"{API}/queue/join", json=body)
            query = {"session_hash": body["session_hash"]}
            with client.stream(
                "GET", f"{API}/queue/data", params=query
            ) as stream:
                for line in stream.iter_lines():
                    if '"process_completed"' in line:
                        break
            output = json.loads(line.removeprefix("data: "))["output"]
            [[left]] = output["data"]
            assert left["image"]["path"].split("/")[-1] == own.split("/")[-1]
    told = "starts with a model that knows drawings of emoji"
    assert told in json.dumps(config)
    assert httpx.get(pages[0], timeout=60).status_code == 200
