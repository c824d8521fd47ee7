"""Training of a reranker on one's own pairs, by the command."""

import csv
import json

import builders
import numpy as np
import pytest
from keras_bridgetower_drawings.training.easy.scenes import ATTRIBUTES
from keras_bridgetower_drawings.training.easy.scenes import load_scenes
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.metrics.retrieval import list_ndcg
from keras_bridgetower.metrics.retrieval import paired_interval
from keras_bridgetower.training import reranker

PRESET = "bridgetower_tiny_easy_pretrain"
# Names of shapes that no preset knows: its vectors cannot tell them.
NEW_NAMES = ("a small tall dax", "a wide old blick", "the far fep of it")


COUNT, FEW = 120, 60


@pytest.fixture(scope="module")
def own(tmp_path_factory):
    """A folder of pictures, and tables of all and of a few by new names."""
    folder = tmp_path_factory.mktemp("own")
    scenes = load_scenes("test")
    shape = list(ATTRIBUTES).index("shape")
    with open(folder / "pairs.csv", "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(("image", "text"))
        for i, values in enumerate(scenes.values[:COUNT]):
            Image.fromarray(scenes.data.images[i]).save(folder / f"{i}.png")
            table.writerow((f"{i}.png", NEW_NAMES[values[shape]]))
    lines = (folder / "pairs.csv").read_text().splitlines(keepends=True)
    (folder / "few.csv").write_text("".join(lines[: 1 + FEW]))
    return folder


@builders.FASTEST
def test_the_command_teaches_new_names_and_says_so(own, tmp_path, run):
    out = tmp_path / "mine"
    words = ["train", "reranker", own / "pairs.csv", "--pictures", own]
    words += ["--preset", PRESET, "--output", out, "--epochs", "6"]
    words += ["--learning-rate", "3e-3"]
    report = json.loads(run(*words, "--json").out)
    assert report == json.loads((out / "report.json").read_text())
    assert report["after"] > report["before"] + 0.1
    assert report["helps"] == (report["low"] > 0)
    assert report["gain"] == pytest.approx(report["after"] - report["before"])
    verdict = "It helps." if report["helps"] else "It does not help: keep"
    assert verdict in (out / "README.md").read_text()
    models = kbt.search.SearchModels.from_preset(str(out))
    assert models.reranks is report["helps"]
    # The saved preset has the scores that were reported.
    pairs = reranker.read_pairs(own / "pairs.csv", own)
    pictures, asked = pairs.split()["test"]
    task = kbt.BridgeTowerRetrieval.from_preset(str(out))
    assert task.backbone.image_tower.trainable
    scores = task.rank(
        [pairs.pictures[i] for i in pictures],
        [pairs.texts[i] for i in asked],
        verbose=0,
    )
    grades = pairs.grades[np.ix_(pictures, asked)]
    found = list_ndcg(scores.T, grades.T).mean()
    assert found == pytest.approx(report["after"], abs=0.01)


@builders.FASTEST
def test_a_teacher_replaces_the_labels(own, tmp_path):
    pairs = reranker.read_pairs(own / "few.csv", own)
    with open(tmp_path / "told.jsonl", "w") as file:
        for text, name in enumerate(pairs.texts):
            for picture in range(0, FEW, 2):
                told = {
                    "query": name,
                    "picture": pairs.pictures[picture].split("/")[-1],
                    "score": 4 * float(pairs.grades[picture, text]),
                }
                file.write(json.dumps(told) + "\n")
    taught = reranker.read_pairs(own / "few.csv", own, tmp_path / "told.jsonl")
    assert np.isfinite(taught.teacher).sum() == 3 * FEW // 2
    report = reranker.train(
        taught, PRESET, tmp_path / "o", epochs=6, learning_rate=3e-3, verbose=0
    )
    assert report["after"] > report["before"] + 0.1


@builders.FASTEST
def test_negatives_are_mined_anew_among_pictures_of_an_index(
    own, tmp_path, monkeypatch, run
):
    """The trained score finds them; those of the index fit no query."""
    pytest.importorskip("lancedb")
    more, index = tmp_path / "more", tmp_path / "index"
    more.mkdir()
    for i, picture in enumerate(load_scenes("test").data.images[200:212]):
        Image.fromarray(picture).save(more / f"other{i}.png")
    (more / "link.png").symlink_to(own / "4.png")
    run("search", "index", more, "--store", index, "--preset", PRESET)
    seen, draw = [], reranker._Part.draw

    def noted(part, *args):
        falls = None
        # An untrained head gives no scores.
        if seen:
            listed = part.order[0][:5]
            scores = part.scorer.score(part.images[listed], part.texts[[0] * 5])
            falls = bool(np.diff(scores).max() < 1e-4)
        seen.append((part.order.tolist(), falls))
        return draw(part, *args)

    monkeypatch.setattr(reranker._Part, "draw", noted)
    words = ["train", "reranker", own / "few.csv", "--pictures", own]
    words += ["--preset", PRESET, "--output", tmp_path / "o", "--epochs", "3"]
    words += ["--learning-rate", "3e-3", "--mine-every", "2"]
    report = json.loads(run(*words, "--json", "--index", index).out)
    assert sum(report["pictures"].values()) == FEW + 12
    assert report["queries"] == dict.fromkeys(report["queries"], 3)
    (by_vectors, _), (still, _), (mined, in_order) = seen
    assert by_vectors == still != mined and in_order


@builders.ONE_BACKEND
def test_splits_are_by_picture_and_rows_are_checked(own, tmp_path):
    pairs = reranker.read_pairs(own / "pairs.csv", own)
    parts = pairs.split()
    rows = np.concatenate([pictures for pictures, _ in parts.values()])
    assert sorted(rows) == list(range(COUNT))
    assert pairs.split()["test"][0].tolist() == parts["test"][0].tolist()
    for content in (
        "image,text\n../secret.png,a\n",
        "image,caption\na.png,a\n",
        "image,text,grade\na.png,a,much\n",
        "image,text,grade\na.png,a,-1\n",
        "image,text\na.png, \n",
    ):
        path = tmp_path / "bad.csv"
        path.write_text(content)
        with pytest.raises(ValueError, match="Each row of .*bad.csv must have"):
            reranker.read_pairs(path, own)
    with pytest.raises(ValueError, match="'query', and 'score', a finite num"):
        reranker.read_pairs(own / "pairs.csv", own, own / "pairs.csv")
    with pytest.raises(ValueError, match="suffix of pairs"):
        reranker.read_pairs(tmp_path / "pairs.txt", own)
    few = reranker.Pairs(pairs.pictures[:3], pairs.texts, pairs.grades[:3])
    with pytest.raises(ValueError, match="`pairs` must have enough pictures"):
        few.split()


@builders.ONE_BACKEND
def test_ndcg_and_interval_are_those_of_scikit_learn_and_scipy():
    from scipy import stats
    from sklearn.metrics import ndcg_score

    rng = np.random.default_rng(0)
    grades = rng.integers(0, 4, (20, 30))
    scores = rng.normal(size=(20, 30))
    # Its gains are the grades themselves.
    wanted = [
        ndcg_score([2.0**g - 1], [s], k=10)
        for g, s in zip(grades, scores, strict=True)
    ]
    np.testing.assert_allclose(list_ndcg(scores, grades), wanted, atol=1e-12)
    values = rng.normal(size=200)
    mean, low, high = paired_interval(values)
    given = stats.bootstrap(
        (values,), np.mean, method="percentile", random_state=1
    ).confidence_interval
    assert (low, high) == pytest.approx((given.low, given.high), abs=0.01)
    assert mean == pytest.approx(values.mean())
