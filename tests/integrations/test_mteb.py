"""Presets in mteb, installed: its scores, lists and result files."""

import json

import numpy as np
import pytest
from builders import FASTEST

import keras_bridgetower as kbt

mteb = pytest.importorskip("mteb", reason="the extra `evaluation`")

from keras_bridgetower.apps.evaluation import models  # noqa: E402
from keras_bridgetower.apps.evaluation import tasks  # noqa: E402
from keras_bridgetower.apps.evaluation.evaluate import evaluate  # noqa: E402

pytestmark = [
    FASTEST,
    pytest.mark.usefixtures("no_records_of_traces"),
    pytest.mark.filterwarnings("ignore"),
]
PRESET = "bridgetower_tiny_emoji_retrieval"
TEXTS = ["a red square", "a blue square", "a warm color"]
COLORS = ((255, 0, 0), (0, 0, 255), (0, 128, 0), (0, 255, 0), (255, 255, 0))
FITS = np.array([[1, 0, 0, 0, 0], [0, 1, 0, 0, 0], [1, 0, 0, 0, 1]], bool)
TOP_K = 3


@pytest.fixture(scope="module")
def pictures():
    return [np.full((64, 64, 3), color, "uint8") for color in COLORS]


def ndcg(scores):
    """Return the mean nDCG@10 of lists by scores, as defined."""
    found = []
    for row, right in zip(scores, FITS, strict=True):
        gains = 1 / np.log2(np.arange(len(row)) + 2)
        best = gains[: right.sum()].sum()
        # Pictures that are not in a list are not found.
        hits = (right & np.isfinite(row))[np.argsort(-row)]
        found.append(hits @ gains / best)
    return np.mean(found)


def test_result_files_have_the_scores_by_definition(pictures, tmp_path):
    task = tasks.picture_retrieval("Colors", "colors", pictures, TEXTS, FITS)
    encoder = models.BridgeTowerEncoder.from_preset(PRESET)
    cross_encoder = models.BridgeTowerCrossEncoder.from_preset(PRESET)
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert isinstance(cross_encoder, mteb.CrossEncoderProtocol)
    for _ in range(2):
        found = evaluate(tmp_path, [task], encoder, cross_encoder, top_k=TOP_K)
    vectors = encoder.model.embed(texts=TEXTS)
    near = vectors @ encoder.model.embed(images=pictures).T
    retrieval = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    scores = retrieval.rank(pictures, TEXTS, verbose=0).T
    listed = np.sort(near, axis=1)[:, -TOP_K:]
    reordered = np.where(near >= listed[:, :1], scores, -np.inf)
    wanted = {"dense": ndcg(near), "cross-encoder": ndcg(reordered)}
    assert ndcg(near) < 1
    for kind, score in wanted.items():
        name = f"keras_bridgetower/{PRESET}-{kind}"
        assert found[name]["Colors"] == pytest.approx(score, abs=1e-5)
        (file,) = tmp_path.rglob(f"*{kind}/*/Colors.json")
        (row,) = json.loads(file.read_text())["scores"]["test"]
        assert row["ndcg_at_10"] == pytest.approx(score, abs=1e-5)
        meta = json.loads((file.parent / "model_meta.json").read_text())
        assert meta["name"] == name
        assert meta["revision"] == file.parent.name
        assert meta["framework"] == ["PyTorch"]


def test_rows_of_texts_and_pictures():
    words = dict(task_metadata=None, hf_split="test", hf_subset="default")
    encoder = models.BridgeTowerEncoder.from_preset(PRESET)
    picture = np.zeros((8, 8, 3), "uint8")
    both = [{"text": ["a"], "image": [picture]}]
    found = encoder.encode(both, **words)
    np.testing.assert_array_equal(found, encoder.model.embed([picture], ["a"]))
    cross_encoder = models.BridgeTowerCrossEncoder.from_preset(PRESET)
    with pytest.raises(ValueError, match="a text and a picture"):
        cross_encoder.predict([{"text": ["a"]}], [{"text": ["b"]}], **words)


@pytest.mark.parametrize("fits", [np.eye(2), [[1, 1, 0, 0, 0]] * 2 + [[0] * 5]])
def test_texts_need_a_picture(fits, pictures):
    with pytest.raises(ValueError, match="`fits`"):
        tasks.picture_retrieval("Mine", "mine", pictures, TEXTS, fits)


def test_other_tasks_are_not_reranked(tmp_path):
    for name in ("STS12", "NIGHTSI2IRetrieval"):
        given = tmp_path, [mteb.get_task(name)], None, object()
        with pytest.raises(ValueError, match=name):
            evaluate(*given)
    with pytest.raises(ValueError, match="`top_k`"):
        evaluate(tmp_path, [], None, top_k=0)
