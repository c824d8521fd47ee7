"""The package as a whole: what must not change, imports, and a call's way."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib
import zlib
from importlib import metadata

import encoder_table
import module_table
import pytest
from builders import FASTEST
from contracts import names
from packaging import requirements

import keras_bridgetower as kbt
from keras_bridgetower.presets import table

pytestmark = FASTEST

PACKAGE = pathlib.Path(kbt.__file__).parent
ROOT = PACKAGE.parent
PRESET = "bridgetower_tiny_emoji_vqa"
# Which folders may import a framework, and most of them inside functions.
HOMES = {
    "tensorflow": {
        *("backend", "data", "distribution", "preprocessing", "training")
    },
    "torch": {
        # Beside transformers, as what a conversion is compared with.
        *("backend", "convert", "distribution", "preprocessing", "training"),
        "models/exporting",
        # A library of PyTorch: its modules are PyTorch's.
        "apps/search/adapters",
    },
    "jax": {"backend", "distribution", "training"},
    "transformers": {"convert"},
    "matplotlib": {"analysis"},
    "typer": {"apps/cli"},
    "rich": {"apps/cli"},
}
# Files that the walks enter at most.
MOST = (10, 9, 12)


@pytest.mark.parametrize("file", names.LISTS)
def test_what_stands_in_the_list_is_kept(file):
    """A change that is meant is written by `tests/contracts/names.py`."""
    kept = (names.HERE / file).read_text().splitlines()
    assert names.LISTS[file]() == kept


def test_the_wheel_is_small_and_under_one_license():
    """Presets under another one come in a distribution of their own."""
    size = 0
    for path in PACKAGE.rglob("*"):
        assert not path.name.startswith(tuple(table.DISTRIBUTIONS))
        if "LICENSE" in path.name:
            assert "Apache License" in path.read_text()
        if path.is_file() and path.suffix != ".pyc":
            size += len(zlib.compress(path.read_bytes()))
    # It holds code alone: 1.5 MB with the list of files, some 40 kB.
    assert size <= 1_450_000


def test_a_type_checker_reads_every_public_name(tmp_path):
    pytest.importorskip("mypy")
    public = [
        f"kbt.{face}.{name}".replace("..", ".")
        for face in names.FACES
        for name in names.exports(face)
    ]
    wrong = ["kbt.BridgeTowerVQB", "kbt.metrics.normalize_answer('a', 'b')"]
    wrong += ["kbt.training.recipes.Recipe.tyni"]
    read = tmp_path / "read.py"
    lines = ["import keras_bridgetower as kbt", *wrong, *public]
    read.write_text("\n".join(lines) + "\n")
    config = ["--config-file", str(PACKAGE.parent / "pyproject.toml")]
    # Its cache would say where the file lay the last time.
    config += ["--cache-dir", str(tmp_path / "cache")]
    use = str(names.HERE / "typed_use.py")
    # Its garbage would slow down the tests behind.
    said = subprocess.run(
        [sys.executable, "-m", "mypy", *config, use, str(read)],
        capture_output=True,
        text=True,
    )
    assert said.stderr == ""
    lines = re.findall(r"^(.+?):(\d+): error", said.stdout, re.MULTILINE)
    wanted = [(str(read), str(line)) for line in (2, 3, 4)]
    assert lines == wanted, said.stdout


def imported():
    for path in sorted(PACKAGE.rglob("*.py")):
        part = path.relative_to(PACKAGE).as_posix()
        for node in ast.walk(ast.parse(path.read_text())):
            names = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                names = [f"{node.module}.{a.name}" for a in node.names]
            for name in names:
                yield part, name.split(".")


def test_imports_point_down():
    """By the list of floors in pyproject.toml, without an exemption."""
    # In its own process, as it sets up logging for the whole of it.
    call = "import sys; from importlinter import cli; "
    call += "sys.exit(cli.lint_imports('pyproject.toml', no_cache=True))"
    assert not subprocess.run([sys.executable, "-c", call], cwd=ROOT).returncode


def test_documents_show_what_the_code_has():
    """Its floors, folders and encoders."""
    text = (ROOT / "pyproject.toml").read_text()
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]
    page = (ROOT / "docs/architecture.md").read_text()
    assert "```\n" + "\n".join(contract["layers"]) + "\n```" in page
    assert module_table.table() in page, "run tools/module_table.py"
    for name, text in encoder_table.pages().items():
        assert text in (ROOT / name).read_text(), "run tools/encoder_table.py"


def test_what_is_imported_is_declared():
    """Also what comes with a dependency today; frameworks in their places."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = project["project"]
    extras = project["optional-dependencies"].values()
    named = {
        re.match(r"[\w-]+", requirement)[0].lower().replace("-", "_")
        for requirement in [*project["dependencies"], *sum(extras, [])]
    }
    # Of pillow and others; pydantic is LanceDB's, whose class it makes. Gradio
    # is installed by itself (the extra `demo`).
    named |= {"pil", "sklearn", "llama_index", "pydantic"}
    named |= {"gradio", "haystack"}
    needed = set()
    for part, name in imported():
        needed.add(name[0].lower())
        homes = tuple(f"{home}/" for home in HOMES.get(name[0], ()))
        assert not homes or part.startswith(homes), (part, name)
        private = name[0] in ("keras", "keras_hub") and name[1:2] == ["src"]
        assert not private or part.startswith("backend/keras_private/"), part
    assert needed - named - sys.stdlib_module_names == {"keras_bridgetower"}
    for requirement in project["dependencies"]:
        floor = requirements.Requirement(requirement)
        assert floor.specifier.contains(metadata.version(floor.name))


def entered(call):
    """Return the functions of the package in the order of first calls."""
    found, start = {}, f"{PACKAGE}/"

    def note(frame, event, _):
        code = frame.f_code
        if event == "call" and code.co_filename.startswith(start):
            file = code.co_filename.removeprefix(start)
            found.setdefault((file, code.co_qualname), len(found))

    sys.setprofile(note)
    try:
        call()
    finally:
        sys.setprofile(None)
    return found


def test_walks_are_those_of_the_page():
    """The steps that docs/architecture.md tells of, in that order."""
    page = (ROOT / "docs/architecture.md").read_text()
    section = page.split("\n## Three walks\n")[1].split("\n## ")[0]
    _, *walks = section.split("\n### ")
    picture = str(ROOT / "examples/drawings/penguin.png")
    x = {"images": [picture] * 2, "text": ["is this a bird?"] * 2}
    vqa = kbt.BridgeTowerVQA.from_preset(PRESET)
    calls = (
        lambda: kbt.BridgeTowerVQA.from_preset(PRESET),
        lambda: vqa.answer(picture, "is this a bird?"),
        lambda: vqa.fit(x, ["yes", "no"], batch_size=2, verbose=0),
    )
    for text, call, most in zip(walks, calls, MOST, strict=True):
        steps = re.findall(r"^\d+\. `(\S+\.py)` `(\S+)`: ", text, re.M)
        files = [file for file, _ in steps]
        assert 8 < len(set(files)) == len(files) <= most
        order = entered(call)
        places = [order[step] for step in steps]
        assert places == sorted(places), sorted(steps, key=order.get)
