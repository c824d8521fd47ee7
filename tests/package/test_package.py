"""The package as a whole: layering, imports, docstring examples."""

import ast
import inspect
import pathlib
import re
import subprocess
import sys
import tomllib
from importlib import metadata

import encoder_table
import exported_files
import keras
import keras_hub
import module_table
import numpy as np
import pytest
from builders import FASTEST
from builders import backbone
from builders import features
from builders import retrieval
from builders import roberta
from builders import vqa
from keras_bridgetower_drawings.training.easy import pictures
from packaging import requirements

import keras_bridgetower as kbt
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import remat
from keras_bridgetower.encoders.layers import TokenLookup
from keras_bridgetower.models import bridges
from keras_bridgetower.models import heads
from keras_bridgetower.models import positions
from keras_bridgetower.models.attention import BridgeTowerAttention
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.cross_modal import CoAttention
from keras_bridgetower.models.cross_modal import CrossModalLayer
from keras_bridgetower.models.cross_modal import MergedAttention

BACKEND = keras.config.backend()
PACKAGE = pathlib.Path(kbt.__file__).parent
ROOT = PACKAGE.parent
# Which folders may import a framework, and most of them inside functions.
HOMES = {
    "tensorflow": {
        *("backend", "data", "distribution", "preprocessing", "training"),
    },
    "torch": {
        # Beside transformers, as what a conversion is compared with.
        *("backend", "convert", "distribution", "preprocessing", "training"),
        "models/exporting",
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


@FASTEST
def test_imports_point_down():
    """By the list of floors in pyproject.toml, without an exemption."""
    # In its own process, as it sets up logging for the whole of it.
    call = "import sys; from importlinter import cli; "
    call += "sys.exit(cli.lint_imports('pyproject.toml', no_cache=True))"
    assert not subprocess.run([sys.executable, "-c", call], cwd=ROOT).returncode


@FASTEST
def test_the_documents_show_the_floors():
    text = (ROOT / "pyproject.toml").read_text()
    contract = tomllib.loads(text)["tool"]["importlinter"]["contracts"][0]
    drawn = "\n".join(contract["layers"])
    assert f"```\n{drawn}\n```" in (ROOT / "docs/architecture.md").read_text()


@FASTEST
def test_the_documents_name_every_folder():
    text = (ROOT / "docs/architecture.md").read_text()
    assert module_table.table() in text, "run tools/module_table.py"


@FASTEST
def test_the_documents_list_the_encoders():
    for name, text in encoder_table.pages().items():
        assert text in (ROOT / name).read_text(), "run tools/encoder_table.py"


@FASTEST
def test_frameworks_are_imported_where_they_belong():
    for part, name in imported():
        homes = tuple(f"{home}/" for home in HOMES.get(name[0], ()))
        assert not homes or part.startswith(homes), (part, name)
        inner = name[0] in ("keras", "keras_hub") and name[1:2] == ["src"]
        assert not inner or part.startswith("backend/keras_private/"), part


@FASTEST
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


# Of what users subclass, `docs/own_work.md` has the example; what a run of
# `Checkpoint` needs besides, `tests/training` makes.
BASES = (kbt.BridgeTowerTask, kbt.BridgeTowerPreprocessor, kbt.Checkpoint)
PUBLIC = [getattr(kbt, name) for name in dir(kbt) if name[0].isupper()]
DOCUMENTED = [
    *(public for public in PUBLIC if public not in BASES),
    *(BridgeTowerAttention, capture_attention, CoAttention, CrossModalLayer),
    MergedAttention,
    *(TokenLookup, bridges.get, backend_ops.gradients, heads.ClassifierHead),
    *(positions.resize_positions, kbt.hidden_states, kbt.Tower),
    kbt.register_head,
    *(kbt.BridgeTowerVQA.answer, kbt.BridgeTowerBackbone.attention_maps),
    *(kbt.BridgeTowerRetrieval.score, kbt.BridgeTowerRetrieval.rank),
    *(kbt.distribute, remat.remat),
]


@pytest.fixture(scope="module")
def models():
    """Models that the examples look into and leave as they are."""
    return {
        "backbone": backbone(),
        "vqa": vqa(),
        "retrieval": retrieval(),
    }


# Some examples start a task from the preset of another one.
@FASTEST
@pytest.mark.filterwarnings("ignore:Newly initialized in this")
@pytest.mark.parametrize("documented", DOCUMENTED, ids=lambda d: d.__qualname__)
def test_docstring_example_runs(documented, models, tmp_path, monkeypatch):
    if documented is kbt.BridgeTowerPretraining and BACKEND == "tensorflow":
        pytest.skip("traces for most of a minute; the others run it")
    if documented is kbt.ExportedModel:
        exported_files.need("onnx")
    monkeypatch.chdir(tmp_path)
    examples = re.findall(
        r"```python\n(.*?)```", inspect.getdoc(documented), re.DOTALL
    )
    assert examples, f"{documented} has no example"
    from PIL import Image

    Image.new("RGB", (20, 20)).save("photo.png")
    names = {
        **{n: getattr(kbt, n) for n in dir(kbt)},
        **{n: getattr(pictures, n) for n in ("load", "attributes")},
        **{k: v for k, v in globals().items() if not k.startswith("test")},
        "layer": BridgeTowerAttention(num_heads=2, key_dim=8),
        "x": np.ones((1, 3, 16), "float32"),
        "np": np,
        "keras_hub": keras_hub,
        "get": bridges.get,
        "remat": remat.remat,
        "gradients": backend_ops.gradients,
        "ClassifierHead": heads.ClassifierHead,
        "LinearHead": heads.LinearHead,
        "resize_positions": positions.resize_positions,
        "features": features(),
        **models,
        "MyEncoder": type("MyEncoder", (), {}),
        "encoder": roberta(),
    }
    for example in examples:
        exec(compile(example, documented.__qualname__, "exec"), dict(names))
