"""The docstring examples of the functions that stand outside `kbt`."""

import importlib
import inspect
import re

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import vqa

from keras_bridgetower.analysis import diversity
from keras_bridgetower.analysis import maps
from keras_bridgetower.objectives.losses import pack_embeddings

MODULES = [
    importlib.import_module(f"keras_bridgetower.{name}")
    for name in """
        analysis.diversity analysis.figures analysis.maps
        backend.uninitialized data.augment.transforms data.datasets.by_name
        data.records.read data.records.write data.stream.epoch_order
        data.stream.samples data.stream.stream metrics.calibration
        metrics.glue metrics.keras_metrics metrics.nlvr2 metrics.retrieval
        metrics.vqa preprocessing.classification preprocessing.masking
        preprocessing.retrieval tasks.ranking
    """.split()
]
NAMES = {
    **{"np": np, "keras": keras, "attention_map": maps.attention_map},
    "HeadDiversity": diversity.HeadDiversity,
    "pack_embeddings": pack_embeddings,
}
EXAMPLES = [
    (module, documented, example)
    for module in MODULES
    for documented in vars(module).values()
    if getattr(documented, "__module__", None) == module.__name__
    for example in re.findall(
        r"```python\n(.*?)```", inspect.getdoc(documented) or "", re.DOTALL
    )
]


@pytest.fixture(scope="module")
def looked_into():
    """What the examples of `analysis` look into, and layers to fill."""
    made = {"vqa": vqa(), "photo": np.zeros((32, 32, 3), "uint8")}
    for name in ("layer", "new_layer", "old_layer"):
        made[name] = keras.layers.Dense(3)
        made[name].build((None, 2))
    return made


@FASTEST
@pytest.mark.parametrize(
    "module, documented, example",
    EXAMPLES,
    ids=[documented.__qualname__ for _, documented, _ in EXAMPLES],
)
def test_docstring_example_runs(
    module, documented, example, looked_into, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    if module.__name__.endswith("figures"):
        pytest.importorskip("matplotlib")
    code = compile(example, documented.__qualname__, "exec")
    exec(code, {**NAMES, **vars(module), **looked_into})
