"""Reranking by an exported fusion equals reranking by Keras."""

import importlib.util

import builders
import every_task
import exported_files
import numpy as np
import pytest
from builders import FASTEST
from builders import difference
from builders import long_but
from builders import randomise

import keras_bridgetower as kbt
from keras_bridgetower.models.exporting.exported import FORMATS

pytestmark = exported_files.MARKS
TEXTS = ["a red circle", "a long text about a bell and a penguin"]


@pytest.fixture(scope="module")
def pictures():
    rng = np.random.default_rng(0)
    colors = rng.integers(0, 256, (12, 1, 1, 3))
    noise = rng.integers(0, 64, (12, 64, 64, 3))
    return list(((colors + noise) % 256).astype("uint8"))


@pytest.fixture(scope="module")
def models(tmp_path_factory):
    """A small preset with both heads, as files."""
    folder = tmp_path_factory.mktemp("preset") / "preset"
    randomise(every_task.make("pretraining")).save_to_preset(folder)
    return kbt.search.SearchModels.from_preset(str(folder))


@pytest.fixture(scope="module")
def exported(models, tmp_path_factory):
    exported_files.need("onnx")
    folder = tmp_path_factory.mktemp("exported") / "fusion"
    kbt.search.export_fusion(models.retrieval, folder)
    return folder


@pytest.fixture(scope="module")
def states(models, pictures):
    return models.retrieval.image_states(pictures)


@pytest.mark.parametrize("form", long_but(exported_files.WRITTEN, "torch"))
def test_each_format_takes_any_number_of_image_tokens(
    models, states, tmp_path, form
):
    exported_files.need(form)
    task = models.retrieval
    path = tmp_path / f"fusion{FORMATS[form].suffix}"
    task.export(path, format=form, part="fusion")

    def fusion(inputs):
        outputs = exported_files.run(form, path, inputs).values()
        # By what they are: LiteRT has names of its own.
        (logits,) = (x for x in outputs if x.shape[1:] == (2,))
        return logits

    want, found = (
        task.score_states(states, "a dot", fusion=one) for one in (None, fusion)
    )
    assert difference(found, want) < 1e-4


@exported_files.ON_TORCH
@pytest.mark.parametrize("runtime", ["openvino", "onnxruntime"])
def test_scores_are_those_of_keras(
    runtime, models, exported, states, pictures, monkeypatch
):
    pytest.importorskip(runtime, reason="the extra `export`")
    # As if the other one were not installed.
    there = object() if runtime == "openvino" else None
    monkeypatch.setattr(importlib.util, "find_spec", lambda _: there)
    fusion = kbt.search.ExportedFusion(exported, models.retrieval)
    for text in TEXTS:
        wanted = models.retrieval.score(pictures, text)
        for given in (fusion, None):
            found = models.retrieval.score_states(states, text, 5, fusion=given)
            assert difference(found, wanted) < 1e-4


@exported_files.ON_TORCH
def test_queries_are_those_of_keras(models, exported, photos, lance_name):
    counted = Counted(kbt.search.ExportedFusion(exported, models.retrieval))
    fast = kbt.search.SearchModels(
        *(models.contrastive, models.retrieval, models.preset), fusion=counted
    )
    searches = [kbt.search.PictureSearch(lance_name, x) for x in (models, fast)]
    stateless = kbt.search.PictureSearch(f"{lance_name}_2", fast)
    stateless.index(photos)
    searches[0].index(photos, states="float32")
    wanted = searches[0].query(TEXTS[0], rerank=100)
    for number, search in enumerate((searches[1], stateless), 1):
        found = search.query(TEXTS[0], rerank=100)
        assert [hit.path for hit in found] == [hit.path for hit in wanted]
        for one, other in zip(found, wanted, strict=True):
            assert one.match == pytest.approx(other.match, abs=1e-4)
        assert counted.pairs == number * len(found)


class Counted:
    """A fusion that counts its pairs."""

    def __init__(self, fusion):
        self.fusion, self.pairs = fusion, 0

    def __call__(self, inputs):
        self.pairs += len(inputs["image_states"])
        return self.fusion(inputs)


@FASTEST
def test_managers_without_a_mask_read_all_tokens(pictures):
    """Their scores would change with the padding that a text has."""
    task = randomise(builders.retrieval(bridge="adaptive_manager"))
    side = task.backbone.image_size
    given = [picture[:side, :side] for picture in pictures[:3]]
    wanted = task.score(given, "a dot")
    found = task.score_states(task.image_states(given), "a dot")
    assert difference(found, wanted) < 1e-5


# What int8 writes is seen in `tests/models/test_exporting.py`.
@pytest.mark.slow
@exported_files.ON_TORCH
def test_int8_keeps_the_order(models, states, pictures, tmp_path):
    exported_files.need("onnx")
    task, texts = models.retrieval, TEXTS * (len(pictures) // 2)
    kbt.search.export_fusion(task, tmp_path / "int8", (pictures, texts))
    fusion = kbt.search.ExportedFusion(tmp_path / "int8", task)
    found = task.score_states(states, TEXTS[0], fusion=fusion)
    wanted = task.score_states(states, TEXTS[0])
    assert 1e-3 < difference(found, wanted) < 0.2 * np.ptp(wanted)
    assert np.corrcoef(found, wanted)[0, 1] > 0.98


@exported_files.ON_TORCH
def test_fusions_of_other_weights_are_rejected(models, exported):
    open_models = kbt.search.SearchModels.from_preset
    with pytest.raises(ValueError, match="for this model"):
        open_models("bridgetower_tiny_emoji_pretrain", fusion=exported)
    with pytest.raises(ValueError, match="`runtime` and `precision`"):
        open_models(models.preset, fusion=exported, precision="int8")
    with pytest.raises(ValueError, match="`fusion` needs"):
        open_models("bridgetower_tiny_easy_contrastive", fusion=exported)
