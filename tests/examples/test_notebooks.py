"""The notebooks run, with small numbers, and show what they promise.

Each is read as it stands in `notebooks/`. A kernel imports everything anew, so
most run in the process of the tests.
"""

import os
import re

import pytest
from builders import FASTEST

nbformat = pytest.importorskip("nbformat", reason="the extra `notebooks`")
pytest.importorskip("nbclient", reason="the extra `notebooks`")
pytest.importorskip("ipykernel", reason="the extra `notebooks`")
pytest.importorskip("matplotlib", reason="the extra `notebooks`")

import notebooks as tool  # noqa: E402

pytestmark = [FASTEST, pytest.mark.filterwarnings("ignore::UserWarning")]
# Other values of the parameters, with which a notebook takes some seconds.
SMALL = {
    "ask_and_look_inside": {"QUESTIONED": 8},
    "search_your_pictures": {"PICTURES": 40, "QUERIES": 2},
    "finetune_vqa_on_your_table": {"HELD_OUT": 28, "EPOCHS": 1},
    "pretrain_and_compare_bridges": {
        **{"HELD_OUT": 8, "ROUNDS": 1, "STEPS": 1},
        **{"SEEDS": (0,), "BRIDGES": (None, "add")},
    },
    "multimodal_rag": {"SECONDS": 48, "ABSENT": 2},
    "train_a_reranker": {"COPIES": 2, "EPOCHS": 1},
    "from_transformers_and_back": {"HELD_OUT": 8, "EPOCHS": 1},
    # It embeds 64 pictures, 16 for each step.
    "one_model_three_backends": {"BACKENDS": ("torch", "jax"), "STEPS": 4},
    "tpu_and_many_devices": {"STEPS": 2, "DEVICES": 2},
}
# Of these a kernel is started: for one, to see that it is done, and for those
# that choose a backend of their own.
IN_A_KERNEL = (
    "ask_and_look_inside",
    "tpu_and_many_devices",
    "one_model_three_backends",
)
IN_THIS_PROCESS = (
    *("search_your_pictures", "finetune_vqa_on_your_table"),
    *("multimodal_rag", "from_transformers_and_back"),
    *("pretrain_and_compare_bridges", "train_a_reranker"),
)
NEEDS = {
    "search_your_pictures": "lancedb",
    "multimodal_rag": "lancedb",
    "one_model_three_backends": "jax",
    "tpu_and_many_devices": "jax",
}
PAGE = tool.ROOT / "docs" / "notebooks.md"


def read(name):
    return nbformat.read(tool.NOTEBOOKS / f"{name}.ipynb", as_version=4)


# CI runs these beside the suite.
@pytest.mark.slow
@pytest.mark.parametrize("name", IN_THIS_PROCESS)
def test_a_notebook_runs(name, tmp_path, monkeypatch):
    pytest.importorskip(NEEDS.get(name, "keras"))
    from matplotlib import pyplot

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(os, "environ", os.environ.copy())
    pyplot.switch_backend("agg")
    names = {"__name__": "__main__"}
    for number, cell in enumerate(tool.code_cells(read(name)), 1):
        code = tool.with_values(cell, SMALL[name])
        exec(compile(code, f"{name}, code cell {number}", "exec"), names)
    # The last picture, by its axes, has something drawn in each panel.
    panels = pyplot.gcf().axes
    assert panels and all(axes.has_data() for axes in panels)
    pyplot.close("all")


@pytest.mark.slow
@pytest.mark.parametrize("name", IN_A_KERNEL)
def test_a_notebook_runs_in_a_kernel(name):
    pytest.importorskip(NEEDS.get(name, "keras"))
    path = tool.NOTEBOOKS / f"{name}.ipynb"
    made, memory, seconds = tool.executed(path, SMALL[name])
    assert tool.pictures(made)[-1].startswith(b"\x89PNG")
    assert 100 < memory < 10_000 and 1 < seconds < 1000
    printed = "".join(
        output.text
        for cell in tool.code_cells(made)
        for output in cell.outputs
        if output.output_type == "stream"
    )
    # On several devices, or on other backends, what is computed stays.
    found = re.findall(r"differ .*by:? (?:.* )?([\d.]+e[-+]\d+)", printed)
    assert bool(found) == (name != "ask_and_look_inside")
    assert all(float(value) < 1e-4 for value in found)


@pytest.mark.parametrize("name", SMALL)
def test_what_is_stored(name):
    """A whole run, small and of no machine, that says what it takes."""
    made, text = read(name), (tool.NOTEBOOKS / f"{name}.ipynb").read_text()
    cells = tool.code_cells(made)
    assert [c.execution_count for c in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error"]
    assert "image/png" in outputs[-1].data
    assert all(len(p) <= tool.LARGEST for p in tool.pictures(made))
    assert len(text) < 200_000
    assert not re.search(r"/(home|work|tmp|root|Users)/", text)
    assert f"notebooks/{name}.ipynb" in PAGE.read_text()
    (cell,) = [
        c for c in made.cells if "parameters" in c.metadata.get("tags", [])
    ]
    given = set(re.findall(r"^(\w+) = ", cell.source, re.M))
    assert given == set(SMALL[name])
