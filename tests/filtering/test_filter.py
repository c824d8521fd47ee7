"""A filter keeps what a plain loop with the tasks' own methods keeps."""

import json
import tarfile

import numpy as np
import pytest
import web_data
from builders import FASTEST

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.filtering import run as filtering
from keras_bridgetower.apps.filtering.folder import share_threshold
from keras_bridgetower.apps.filtering.run import PairScorer
from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.preprocessing.images import load_image

pytestmark = [
    FASTEST,
    pytest.mark.usefixtures("opened_once"),
    # One text is longer than the model reads, and its start is scored.
    pytest.mark.filterwarnings("ignore:.* texts cut"),
]
PRESET = "bridgetower_tiny_easy_retrieval"
EXACT = {"abs": 1e-4}


@pytest.fixture(autouse=True)
def tables():
    pytest.importorskip("pyarrow", reason="the extra `data`")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("web")
    return {
        "tars": web_data.write_set(folder / "t", web_data.write_tar, ".tar"),
        "folders": web_data.write_set(folder / "f", web_data.write_folder),
    }


@pytest.fixture(scope="module")
def looped():
    """The scores of a plain loop, by key: one pair at a time."""
    models = SearchModels.from_preset(PRESET)
    found = {}
    for key, image, text in web_data.good():
        image = load_image(image)
        vector = models.contrastive.embed(images=image)
        of_text = models.contrastive.embed(texts=text, long_texts="cut_end")
        itm = models.retrieval.score(image, text)
        found[key] = {"itm": itm, "itc": float(vector @ of_text)}
    assert len(found) == 15
    return found


def rows(folder):
    from pyarrow import parquet

    return [
        row
        for path in sorted(folder.rglob("*.parquet"))
        for row in parquet.read_table(path).to_pylist()
    ]


def test_scores_equal_a_plain_loop(data, looped, tmp_path):
    seen = []
    report = filtering.run(
        *(data["tars"], tmp_path / "out", PRESET),
        keep_share=0.25,
        batch_size=3,
        on_shards=lambda *done: seen.append(done),
    )
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert (report.shards, report.samples, report.bad) == (3, 20, 5)
    found = {row["key"]: row for row in rows(tmp_path / "out/scores")}
    assert len(found) == 20
    for key, row in found.items():
        number = int(key[-4:])
        if key != "000000007":
            assert row["uid"] == f"uid {int(key[:5])} {number}"
        if key in web_data.FAULTS:
            assert web_data.FAULTS[key] in row["error"], row
            assert row["itm"] is None and row["itc"] is None
        else:
            assert row["error"] is None
            assert row["itm"] == pytest.approx(looped[key]["itm"], **EXACT)
            assert row["itc"] == pytest.approx(looped[key]["itc"], **EXACT)
    named = {key: error for _, key, error in report.bad_samples}
    assert named == {key: found[key]["error"] for key in web_data.FAULTS}

    # A quarter of 15, rounded: the best 4.
    best = sorted(looped, key=lambda key: -looped[key]["itm"])[:4]
    kept = rows(tmp_path / "out/kept")
    assert {row["key"] for row in kept} == set(best)
    assert report.kept == 4 and report.by == "itm"
    lowest = min(looped[key]["itm"] for key in best)
    assert report.threshold == pytest.approx(lowest, **EXACT)
    for row in kept:
        assert row == {
            **{n: found[row["key"]][n] for n in ("key", "uid", "itm", "itc")},
            "shard": row["key"][:5],
        }


def test_kept_samples_as_tars(data, looped, tmp_path):
    """With all files of a sample; by one score alone, and a threshold."""
    limit = float(np.median([found["itc"] for found in looped.values()]))
    report = filtering.run(
        *(data["folders"], tmp_path / "out", PRESET, ("itc",)),
        threshold=limit,
        write_tars=True,
    )
    wanted = {key for key, found in looped.items() if found["itc"] >= limit}
    kept = {row["key"] for row in rows(tmp_path / "out/kept")}
    # The median itself may fall on either side.
    assert len(wanted) == 8 and len(wanted ^ kept) <= 1
    assert report.kept == len(kept) and report.threshold == limit
    originals = dict(
        sample
        for shard in range(3)
        for sample in web_data.samples(shard, faults=shard == 0)
    )
    found = {}
    for path in sorted((tmp_path / "out/tars").iterdir()):
        with tarfile.open(path) as tar:
            for member in tar:
                key, _, suffix = member.name.partition(".")
                data_of = tar.extractfile(member).read()
                found.setdefault(key, {})[suffix] = data_of
    assert found == {key: originals[key] for key in kept}


def test_filter_continues_after_an_interruption(data, tmp_path, monkeypatch):
    out = tmp_path / "out"
    words = (data["tars"], out, PRESET)
    whole = filtering.run(
        data["tars"], tmp_path / "whole", PRESET, keep_share=0.5
    )
    score = PairScorer.score

    def interrupted(self, samples):
        for number, made in enumerate(score(self, samples)):
            if made[0].key.startswith("00001") and number == 2:
                raise KeyboardInterrupt
            yield made

    with monkeypatch.context() as patch:
        patch.setattr(PairScorer, "score", interrupted)
        with pytest.raises(KeyboardInterrupt):
            filtering.run(*words, keep_share=0.5)
    # What is half-written is nothing to a reader of the folder.
    named = {p.name for p in (out / "scores").iterdir()}
    assert named <= {"00000.parquet", "_00001.parquet"}
    report = filtering.run(*words, keep_share=0.5)
    assert report.scored_before == 1
    assert report.kept == whole.kept and report.threshold == whole.threshold
    assert rows(out / "kept") == rows(tmp_path / "whole/kept")
    # Other shares and scores read no sample again.
    monkeypatch.setattr(PairScorer, "score", None)
    other = filtering.run(*words, ("itc", "itm"), keep_share=0.2)
    assert (other.by, other.scored_before) == ("itc", 3)

    def again():
        report = filtering.run(*words, keep_share=0.2, write_tars=True)
        assert report.scored_before == report.kept == 3
        assert len(rows(out / "kept")) == 3

    again()
    tars = {p: p.stat().st_mtime_ns for p in (out / "tars").iterdir()}
    assert 0 < len(tars) <= 3
    lost = next(iter(tars))
    content = lost.read_bytes()
    lost.unlink()
    again()
    assert lost.read_bytes() == content
    assert all(p == lost or p.stat().st_mtime_ns == tars[p] for p in tars)


def test_changed_and_damaged_shards(tmp_path):
    folder, out = tmp_path / "data", tmp_path / "out"
    folder.mkdir()
    for shard in range(2):
        path = folder / f"{shard}.tar"
        web_data.write_tar(path, web_data.samples(shard, count=6))
    words = (folder, out, PRESET, ("itc",))
    first = filtering.run(*words, keep_share=1.0)
    assert (first.kept, first.bad) == (12, 0)
    # Cut within the third sample.
    whole = (folder / "1.tar").read_bytes()
    with tarfile.open(folder / "1.tar") as tar:
        third = tar.getmember("000010002.jpg").offset_data
    (folder / "1.tar").write_bytes(whole[: third + 100])
    (folder / "2.tar").write_bytes(b"no tar at all")
    report = filtering.run(*words, keep_share=1.0, write_tars=True)
    assert (report.scored_before, report.kept, report.bad) == (1, 8, 2)
    for (shard, key, error), name in zip(
        report.bad_samples, ("1", "2"), strict=True
    ):
        assert shard == name and key == f"{name}.tar"
        assert error.startswith("it cannot be read further: ")
    assert {p.name for p in (out / "tars").iterdir()} == {"0.tar", "1.tar"}
    (folder / "1.tar").unlink()
    filtering.run(*words, keep_share=1.0)
    assert {row["shard"] for row in rows(out / "kept")} == {"0"}


def test_thresholds_are_exact():
    """By sorting, also with equal, negative and missing scores."""
    scores = np.random.default_rng(0).normal(size=1003).astype("float32")
    scores[::7] = np.round(scores[::7], 1)
    scores[5], scores[6], scores[8] = 0.0, -0.0, np.float32(1e-42)
    parts = [scores[:400], np.full(3, np.nan, "float32"), scores[400:]]
    for share in (0.001, 0.1, 0.333, 0.5, 1.0):
        wanted = np.sort(scores)[::-1][max(1, int(share * 1003 + 0.5)) - 1]
        assert share_threshold(parts, share) == wanted
    assert share_threshold(parts[1:2], 0.5) is None


def test_the_command(data, tmp_path, capsys):
    out = tmp_path / "out"
    words = ["data", "filter", str(data["tars"]), str(out), "--keep", "0.25"]
    assert main.main([*words, "--score", "itc", "--json"]) == 0
    said = capsys.readouterr()
    found = json.loads(said.out)
    assert (found["samples"], found["kept"], found["by"]) == (20, 4, "itc")
    assert [bad["key"] for bad in found["bad_samples"]] == list(web_data.FAULTS)
    assert said.err.startswith("warning: 000000003 of 00000 has no score: ")


@pytest.mark.parametrize(
    "words, told",
    [
        ("DATA OUT", "Give either"),
        ("NONE OUT --keep 1", "SOURCE must be a tar"),
        ("DATA DATA/out --keep 1", "must not be inside SOURCE"),
        ("DATA DATA/.. --keep 1", "which holds other files"),
        (
            "DATA OUT --keep 1 --preset bridgetower_tiny_easy_contrastive",
            "matching head for the score itm",
        ),
    ],
)
def test_wrong_input(words, told, data, tmp_path, capsys):
    for name in ("DATA", "OUT", "NONE"):
        place = data["tars"] if name == "DATA" else tmp_path / name.lower()
        words = words.replace(name, str(place))
    assert main.main(["data", "filter", *words.split()]) == 1
    said = capsys.readouterr()
    assert said.out == "" and said.err.count("\n") == 1 and told in said.err
    assert not (tmp_path / "out").exists()


def test_output_of_another_model_is_rejected(data, tmp_path):
    out, other = tmp_path / "out", "bridgetower_tiny_easy_contrastive"

    def run(preset, *scores):
        filtering.run(data["tars"], out, preset, scores, threshold=0.0)

    run(PRESET, "itc")
    for preset, score, message in (
        (PRESET, "itm", "differing in: scores, sums"),
        (other, "itc", "differing in: sums"),
    ):
        with pytest.raises(ValueError, match=message):
            run(preset, score)
    (out / "filter.json").write_text("{")
    with pytest.raises(ValueError, match="a readable filter.json"):
        run(PRESET, "itc")
