"""The docstring examples of the package run, each in a folder of its own."""

import importlib
import inspect
import re
import sys

import exported_files
import keras
import keras_hub
import numpy as np
import pytest
from builders import FASTEST
from builders import features
from builders import one_layer_each
from builders import retrieval
from builders import roberta
from builders import shallow
from builders import vqa
from keras_bridgetower_drawings.training.easy import pictures
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower import analysis
from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import remat
from keras_bridgetower.encoders.layers import TokenLookup
from keras_bridgetower.models import attention
from keras_bridgetower.models import bridges
from keras_bridgetower.models import cross_modal
from keras_bridgetower.models import heads
from keras_bridgetower.models import positions
from keras_bridgetower.objectives.losses import pack_embeddings

pytestmark = FASTEST
# Of what users subclass, `docs/own_work.md` has the example; what a run of
# `Checkpoint` needs besides, `tests/training` makes.
BASES = (kbt.BridgeTowerTask, kbt.BridgeTowerPreprocessor, kbt.Checkpoint)
PUBLIC = [getattr(kbt, name) for name in dir(kbt) if name[0].isupper()]
# Each of these has an example.
DOCUMENTED = [
    *(public for public in PUBLIC if public not in BASES),
    *(attention.BridgeTowerAttention, attention.capture_attention),
    *(cross_modal.CoAttention, cross_modal.CrossModalLayer),
    *(cross_modal.MergedAttention, TokenLookup, heads.ClassifierHead),
    *(bridges.get, backend_ops.gradients, positions.resize_positions),
    *(kbt.hidden_states, kbt.Tower, kbt.register_head),
    *(kbt.BridgeTowerVQA.answer, kbt.BridgeTowerBackbone.attention_maps),
    *(kbt.BridgeTowerRetrieval.score, kbt.BridgeTowerRetrieval.rank),
    *(kbt.distribute, remat.remat),
]
# Of what these define, some have.
MODULES = [
    importlib.import_module(f"keras_bridgetower.{name}")
    for name in """
        analysis.diversity analysis.figures analysis.maps
        backend.keras_private.variables data.augment.transforms
        data.datasets.by_name data.records.read data.records.write
        data.stream.epoch_order data.stream.samples data.stream.stream
        metrics.calibration metrics.classification metrics.keras_metrics
        metrics.retrieval metrics.vqa preprocessing.classification
        preprocessing.masking preprocessing.retrieval tasks.ranking
    """.split()
]


def examples(documented):
    text = inspect.getdoc(documented) or ""
    return re.findall(r"```python\n(.*?)```", text, re.DOTALL)


SOME = [
    documented
    for module in MODULES
    for documented in vars(module).values()
    if getattr(documented, "__module__", None) == module.__name__
    and examples(documented)
]
ALL = list(dict.fromkeys([*DOCUMENTED, *SOME]))


@pytest.fixture(scope="module")
def made():
    """Models and layers that the examples look into or fill."""
    layers = {n: keras.layers.Dense(3) for n in ("new_layer", "old_layer")}
    for layer in layers.values():
        layer.build((None, 2))
    return layers | {
        "backbone": shallow(),
        "vqa": vqa(**one_layer_each()),
        "retrieval": retrieval(**one_layer_each()),
        "layer": attention.BridgeTowerAttention(num_heads=2, key_dim=8),
        "encoder": roberta(),
        "features": features(),
        "x": np.ones((1, 3, 16), "float32"),
        "photo": np.zeros((32, 32, 3), "uint8"),
    }


# Some examples start a task from the preset of another one.
@pytest.mark.filterwarnings("ignore:Newly initialized in this")
@pytest.mark.parametrize("documented", ALL, ids=lambda d: d.__qualname__)
def test_docstring_example_runs(documented, made, tmp_path, monkeypatch):
    found = examples(documented)
    assert found, f"{documented} has no example"
    if documented is kbt.ExportedModel:
        exported_files.need("onnx")
    if documented.__module__.endswith("figures"):
        pytest.importorskip("matplotlib")
    monkeypatch.chdir(tmp_path)
    Image.new("RGB", (20, 20)).save("photo.png")
    names = {
        **{name: getattr(kbt, name) for name in dir(kbt)},
        **{name: getattr(pictures, name) for name in ("load", "attributes")},
        **{"kbt": kbt, "keras": keras, "keras_hub": keras_hub, "np": np},
        **{"MyEncoder": type("MyEncoder", (), {}), "bridges": bridges},
        "LinearHead": heads.LinearHead,
        "attention_map": analysis.attention_map,
        "HeadDiversity": analysis.diversity.HeadDiversity,
        "pack_embeddings": pack_embeddings,
        **vars(sys.modules[documented.__module__]),
        **made,
    }
    for example in found:
        exec(compile(example, documented.__qualname__, "exec"), dict(names))
