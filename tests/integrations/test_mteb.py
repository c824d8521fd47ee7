"""Presets in mteb, installed: its scores, lists and result files."""

import json

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image

mteb = pytest.importorskip("mteb", reason="the extra `evaluation`")
datasets = pytest.importorskip("datasets")

from mteb.abstasks import AbsTaskImageTextPairClassification  # noqa: E402

from keras_bridgetower.apps.evaluation import models  # noqa: E402
from keras_bridgetower.apps.evaluation import tasks  # noqa: E402
from keras_bridgetower.apps.evaluation.__main__ import main  # noqa: E402
from keras_bridgetower.apps.evaluation.tasks import evaluate  # noqa: E402

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


@pytest.fixture(scope="module")
def encoder():
    return models.BridgeTowerEncoder.from_preset(PRESET)


@pytest.fixture(scope="module")
def cross_encoder():
    return models.BridgeTowerCrossEncoder.from_preset(PRESET)


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


def test_result_files_have_the_scores_by_definition(
    pictures, encoder, cross_encoder, tmp_path
):
    task = tasks.picture_retrieval("Colors", "colors", pictures, TEXTS, FITS)
    assert isinstance(encoder, mteb.EncoderProtocol)
    assert isinstance(cross_encoder, mteb.CrossEncoderProtocol)
    for _ in range(2):
        found = evaluate(tmp_path, [task], encoder, cross_encoder, top_k=TOP_K)
    vectors = encoder.model.embed(texts=TEXTS)
    near = vectors @ encoder.model.embed(images=pictures).T
    scores = cross_encoder.model.task.rank(pictures, TEXTS, verbose=0).T
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


def test_rows_of_texts_and_pictures(pictures, encoder, cross_encoder):
    words = dict(task_metadata=None, hf_split="test", hf_subset="default")
    given = pictures[:1], ["a"]
    both = [dict(zip(("image", "text"), given, strict=True))]
    found = encoder.encode(both, **words)
    np.testing.assert_array_equal(found, encoder.model.embed(*given))
    with pytest.raises(ValueError, match="a text and a picture"):
        cross_encoder.predict([{"text": ["a"]}], [{"text": ["b"]}], **words)


class Blind(models.BridgeTowerEncoder):
    """Embeds everything alike."""

    def encode(self, inputs, **kwargs):
        return np.ones_like(super().encode(inputs, **kwargs))


def test_pairs_by_one_command(
    pictures, encoder, cross_encoder, tmp_path, monkeypatch, capsys
):
    rows = [(0, *TEXTS[:2]), (1, *TEXTS[1::-1]), (3, *TEXTS[1::-1])]
    table = [
        {"image": f"{i}.png", "text": text, "false": false, "sort": "ab"[i > 1]}
        for i, text, false in rows
    ]
    file = tmp_path / "pairs.jsonl"
    file.write_text("\n".join(map(json.dumps, table)))
    for i, *_ in rows:
        Image.fromarray(pictures[i]).save(tmp_path / f"{i}.png")
    given = ["mteb", str(tmp_path), "--pairs", str(file)]
    for kind in ("--encoder", "--cross-encoder"):
        given += [kind, PRESET]
    monkeypatch.setattr("sys.argv", given)
    main()
    printed = [
        line.split("\t") for line in capsys.readouterr().out.splitlines()
    ]
    found = {(model.split("-")[1], task): x for model, task, x in printed}
    shown = [pictures[i] for i, *_ in rows]
    images = encoder.model.embed(images=shown)
    near, scores = (
        np.stack([score([r[k] for r in rows]) for k in (1, 2)])
        for score in (
            lambda texts: (images * encoder.model.embed(texts=texts)).sum(1),
            lambda texts: cross_encoder.model.task.score(shown, texts),
        )
    )
    for kind, (true, false) in (("dense", near), ("cross", scores)):
        right = true > false
        assert found[kind, "pairs-a"] == f"{right[:2].mean():.4f}"
        assert found[kind, "pairs-b"] == f"{right[2:].mean():.4f}"
    # Of equal scores the true caption is not the first.
    blind = Blind(encoder.model, "blind")
    (scores,) = evaluate(tmp_path, tasks.read_pairs(file), blind).values()
    assert [*scores.values()] == [0, 0]
    for text in ("", '{"image": "0.png", "text": "a"}'):
        file.write_text(text)
        with pytest.raises(ValueError, match="`pairs` must have rows"):
            tasks.read_pairs(file)
    with pytest.raises(ValueError, match="`captions`"):
        tasks.caption_choice("Mine", "mine", pictures[:1], [["a"]])


def test_texts_need_a_picture(pictures):
    for fits in (np.eye(2), [[1, 1, 0, 0, 0]] * 2 + [[0] * 5]):
        with pytest.raises(ValueError, match="`fits`"):
            tasks.picture_retrieval("Mine", "mine", pictures, TEXTS, fits)


def test_tasks_that_do_not_search_are_not_reranked(pictures, encoder, tmp_path):
    """MIEB's compositional tasks, of which the encoder makes vectors."""

    class Compositional(AbsTaskImageTextPairClassification):
        images_column_names = ("image_0", "image_1")
        texts_column_names = ("caption_0", "caption_1")
        metadata = mteb.get_task("Winoground").metadata.model_copy(
            update={"name": "Mine"}
        )

        def load_data(self, **kwargs):
            columns = {
                "image_0": [Image.fromarray(pictures[0])],
                "image_1": [Image.fromarray(pictures[1])],
                "caption_0": TEXTS[:1],
                "caption_1": TEXTS[1:2],
            }
            data = datasets.Dataset.from_dict(columns)
            self.dataset, self.data_loaded = {"test": data}, True

    found = evaluate(tmp_path, [Compositional()], encoder, object())
    vectors = encoder.model.embed(texts=TEXTS[:2])
    near = vectors @ encoder.model.embed(images=pictures[:2]).T
    right = (near.argmax(0) == [0, 1]).all()
    (scores,) = found.values()
    assert scores == {"Mine": right}
    with pytest.raises(ValueError, match="`top_k`"):
        evaluate(tmp_path, [], None, top_k=0)
