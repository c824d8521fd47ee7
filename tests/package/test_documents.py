"""The README and the pages of docs/: their code, links, names and the site."""

import importlib.util
import inspect
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
import tomllib

import keras
import pytest
import typer
from builders import FASTEST
from contracts import names

from keras_bridgetower.apps.cli import main

pytestmark = FASTEST
ROOT = pathlib.Path(__file__).parents[2]
DOCS = ROOT / "docs"
# Its code is a module of its own, which tests/package/test_own_work.py runs.
ELSEWHERE = {DOCS / "own_work.md"}
PAGES = sorted({ROOT / "README.md", *DOCS.rglob("*.md")} - ELSEWHERE)
FENCE = re.compile(r"^( *)```(\w+)([^\n]*)\n(.*?)^ *```$", re.S | re.M)
# How the title of a block begins that is shown and not run, with the reason.
NOT_RUN = 'title="Not run by the tests: '
# test_photo_package.py, of the presets, runs these.
WITH_PHOTOS = 'title="With the photo presets"'


def blocks(page, language):
    """`(line, code)` of each block that runs."""
    text = page.read_text()
    for match in FENCE.finditer(text):
        indent, kind, options, code = match.groups()
        skipped = NOT_RUN in options or WITH_PHOTOS in options
        if kind == language and not skipped:
            line = text[: match.start(4)].count("\n")
            yield line, re.sub(f"^{indent}", "", code, flags=re.M)


def name_of(page):
    return str(page.relative_to(ROOT))


COMMANDS = typer.main.get_command(main.application())
WITH_CODE = [page for page in PAGES if any(blocks(page, "python"))]


@pytest.mark.parametrize("page", WITH_CODE, ids=name_of)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_the_code_of_a_page_runs(page, tmp_path, monkeypatch):
    """Block after block, with the names of that page alone."""
    text = page.read_text()
    if "matplotlib" in text or "savefig" in text:
        pytest.importorskip("matplotlib")
    if "kbt.search" in text:
        pytest.importorskip("lancedb", reason="the extra `search`")
    # An index of some of the drawings runs the same code.
    for number, path in enumerate(sorted(ROOT.glob("examples/*s/*.png"))):
        named = path.parent.name == "pictures" or path.stem in text
        if named or number % 9 == 0:
            copy = tmp_path / path.relative_to(ROOT)
            copy.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(path, copy)
    monkeypatch.chdir(tmp_path)
    policy = keras.config.dtype_policy()
    scope = {"__name__": "__main__"}
    for line, code in blocks(page, "python"):
        # One epoch runs the same code.
        code = code.replace("epochs=4", "epochs=1")
        # A traceback then names the line of the page.
        code = compile("\n" * line + code, name_of(page), "exec")
        exec(code, scope)
    assert keras.config.dtype_policy() == policy


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_commands_of_a_page_exist(page, monkeypatch):
    """Each script and command in a block of a page, and its options."""
    monkeypatch.syspath_prepend(ROOT / "preset_packages/photos")
    shell = "".join(code for _, code in blocks(page, "sh"))
    for path in re.findall(r"python ((?:examples|tools)/\S+\.py)", shell):
        assert (ROOT / path).is_file(), path
    for module in re.findall(r"python -m (keras_bridgetower\S+)", shell):
        assert importlib.util.find_spec(module), module
    shell = shell.replace("\\\n", " ")
    for line in re.findall(r"keras-bridgetower ([^|\n]+)", shell):
        command = COMMANDS
        words = shlex.split(line, comments=True)
        while words and words[0] in getattr(command, "commands", {}):
            command = command.commands[words.pop(0)]
        assert not hasattr(command, "commands"), line
        known = {o for p in command.params for o in p.opts}
        given = {word for word in words if word.startswith("--")}
        assert given <= known, line


def test_the_links_of_the_readme_lead_somewhere():
    text = (ROOT / "README.md").read_text()
    for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
        if not target.startswith("https://"):
            assert (ROOT / target).exists(), target


def test_every_extra_is_explained():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    page = (DOCS / "start" / "install.md").read_text()
    table = page.split("| extra | adds |")[1].split("\n\n")[0]
    named = set(re.findall(r"`(\w+)`", re.sub(r"\|[^|\n]*\|\n", "|\n", table)))
    assert named == set(project["optional-dependencies"])


def test_the_reference_has_every_public_name():
    """Under one of its names: `Stream` is also `data.Stream`."""
    pages = "".join(p.read_text() for p in (DOCS / "reference").glob("*.md"))
    listed = set(re.findall(r"^::: \S+\.(\w+)$", pages, re.M))
    for face in names.FACES:
        for name, value in names.public(face).items():
            assert inspect.ismodule(value) or name in listed, (face, name)


def test_the_site_is_built_without_a_warning(tmp_path):
    """Links, anchors, the navigation and all references are right."""
    pytest.importorskip("mkdocs")
    pytest.importorskip("material")
    pytest.importorskip("mkdocstrings")
    site = tmp_path / "site"
    built = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "-d", site],
        cwd=ROOT,
        env=os.environ | {"NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
    )
    assert built.returncode == 0, built.stderr[-3000:]
    page = (site / "reference/tasks/index.html").read_text()
    # The signature, drawn from the code.
    assert "questions" in page and "top_k" in page
