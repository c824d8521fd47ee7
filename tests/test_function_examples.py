"""The docstring examples of the functions that stand outside `kbt`."""

import inspect
import re

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import vqa

from keras_bridgetower.analysis import diversity
from keras_bridgetower.analysis import explanation
from keras_bridgetower.analysis import figures
from keras_bridgetower.analysis import maps
from keras_bridgetower.backend import uninitialized
from keras_bridgetower.data.augment import transforms
from keras_bridgetower.data.datasets import by_name
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write
from keras_bridgetower.data.stream import epoch_order
from keras_bridgetower.data.stream import samples as bad_samples
from keras_bridgetower.data.stream import stream
from keras_bridgetower.metrics import glue
from keras_bridgetower.metrics import keras_metrics
from keras_bridgetower.metrics import nlvr2
from keras_bridgetower.metrics import retrieval as recall
from keras_bridgetower.metrics import vqa as vqa_metrics
from keras_bridgetower.objectives.losses import pack_embeddings
from keras_bridgetower.preprocessing import classification as class_ids
from keras_bridgetower.preprocessing import masking
from keras_bridgetower.preprocessing import retrieval
from keras_bridgetower.tasks.ranking import rank as shortlist

MODULES = (
    diversity,
    explanation,
    figures,
    maps,
    uninitialized,
    transforms,
    bad_samples,
    by_name,
    glue,
    class_ids,
    keras_metrics,
    masking,
    recall,
    nlvr2,
    epoch_order,
    stream,
    write,
    read,
    retrieval,
    shortlist,
    vqa_metrics,
)
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
    if module is figures:
        pytest.importorskip("matplotlib")
    code = compile(example, documented.__qualname__, "exec")
    exec(code, {**NAMES, **vars(module), **looked_into})
