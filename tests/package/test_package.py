"""The package as a whole: its layers, its imports, and what documents show."""

import ast
import pathlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import encoder_table
import module_table
from builders import FASTEST
from packaging import requirements

import keras_bridgetower as kbt

pytestmark = FASTEST

PACKAGE = pathlib.Path(kbt.__file__).parent
ROOT = PACKAGE.parent
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


def test_the_documents_show_the_floors():
    text = (ROOT / "pyproject.toml").read_text()
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]
    drawn = "\n".join(contract["layers"])
    assert f"```\n{drawn}\n```" in (ROOT / "docs/architecture.md").read_text()


def test_the_documents_name_every_folder():
    text = (ROOT / "docs/architecture.md").read_text()
    assert module_table.table() in text, "run tools/module_table.py"


def test_the_documents_list_the_encoders():
    for name, text in encoder_table.pages().items():
        assert text in (ROOT / name).read_text(), "run tools/encoder_table.py"


def test_frameworks_are_imported_where_they_belong():
    for part, name in imported():
        homes = tuple(f"{home}/" for home in HOMES.get(name[0], ()))
        assert not homes or part.startswith(homes), (part, name)
        inner = name[0] in ("keras", "keras_hub") and name[1:2] == ["src"]
        assert not inner or part.startswith("backend/keras_private/"), part


def test_what_is_imported_is_declared():
    """Also what comes with a dependency today."""
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
    needed = {name[0].lower() for _, name in imported()}
    assert needed - named - sys.stdlib_module_names == {"keras_bridgetower"}
    for requirement in project["dependencies"]:
        floor = requirements.Requirement(requirement)
        assert floor.specifier.contains(metadata.version(floor.name))
