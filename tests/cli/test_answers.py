"""Commands that ask a model give what the Python methods give."""

import json
import pathlib

import keras
import numpy as np
import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.cli import models as cli_models
from keras_bridgetower.apps.demo import models as demo
from keras_bridgetower.presets import table
from keras_bridgetower.presets import verbs

pytestmark = FASTEST
PICTURES = pathlib.Path(__file__).parents[2] / "examples/pictures"
BLUE = str(PICTURES / "easy_vqa_test_6.png")
RED = str(PICTURES / "easy_vqa_test_8.png")
QUESTION = "what color is the shape?"
EXACT = {"rel": 1e-5, "abs": 1e-7}
# The default presets know emoji, and these pictures are of colored shapes.
EASY = {
    "ask": "vqa",
    "match": "retrieval",
    "rank": "retrieval",
    "fill": "mlm",
    "embed": "contrastive",
    "entail": "entailment",
    "compare": "nlvr2",
}


@pytest.fixture
def run(run):
    """Run a command that ends well, and return what it printed."""

    def run_easy(*words):
        if words[0] in EASY:
            words += ("--preset", f"bridgetower_tiny_easy_{EASY[words[0]]}")
        out, err = run(*words)
        assert err == ""
        return out

    return run_easy


@pytest.fixture
def run_json(run):
    def run_json(*words):
        printed = run(*words, "--json")
        # One document, on one line.
        assert printed.count("\n") == 1
        return json.loads(printed)

    return run_json


def task(name, preset):
    return getattr(kbt, f"BridgeTower{name}").from_preset(
        f"bridgetower_tiny_easy_{preset}"
    )


def test_ask(run, run_json):
    bars = keras.config.is_interactive_logging_enabled()
    wanted = task("VQA", "vqa").answer(BLUE, QUESTION, top_k=3)
    found = run_json("ask", BLUE, QUESTION, "--top-k", 3)
    assert found["picture"] == BLUE and found["question"] == QUESTION
    for answer, (name, score) in zip(found["answers"], wanted, strict=True):
        assert answer["answer"] == name
        assert answer["score"] == pytest.approx(score, **EXACT)
    # A line for each, with a tab between.
    lines = [f"{name}\t{score:.5f}" for name, score in wanted]
    assert run("ask", BLUE, QUESTION, "--top-k", 3).splitlines() == lines
    assert run("ask", BLUE, QUESTION).splitlines() == lines[:1]
    assert wanted[0][0] == "blue"
    # The command hides the bars of Keras while it runs.
    assert keras.config.is_interactive_logging_enabled() is bars


def test_match_and_rank(run, run_json):
    retrieval = task("Retrieval", "retrieval")
    texts = [
        "a medium blue circle in the west.",
        "a medium red triangle in the north.",
    ]
    wanted = retrieval.score(BLUE, texts)
    found = run_json("match", BLUE, *texts)["matches"]
    assert [row["text"] for row in found] == texts
    scores = [row["score"] for row in found]
    np.testing.assert_allclose(scores, wanted, rtol=1e-4, atol=1e-4)
    lines = run("match", BLUE, *texts).splitlines()
    assert [line.split("\t")[0] for line in lines] == texts

    for text, best in zip(texts, (BLUE, RED), strict=True):
        wanted = retrieval.rank([BLUE, RED], [text], verbose=0)[:, 0]
        # The folder holds both, and the better one may come last in it.
        found = run_json("rank", text, PICTURES)
        assert found["searched"] == 2
        by_path = {row["picture"]: row["score"] for row in found["pictures"]}
        np.testing.assert_allclose(
            [by_path[BLUE], by_path[RED]], wanted, rtol=1e-4, atol=1e-4
        )
        assert found["pictures"][0]["picture"] == best
        first = run("rank", text, RED, BLUE, "--top-k", 1)
        assert first.split("\t")[0] == best and first.count("\n") == 1


def test_rank_skips_damaged_pictures(tmp_path, capsys):
    """Files that are no picture, or whose head alone is that of one."""
    whole = pathlib.Path(BLUE).read_bytes()
    Image.fromarray(np.full((8, 8), 0.5, "float32")).save(tmp_path / "f.tif")
    (tmp_path / "a.png").write_bytes(b"no picture")
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no picture")
    words = ["rank", "a blue circle.", str(tmp_path)]
    words += ["--preset", "bridgetower_tiny_easy_retrieval"]
    assert main.main([*words, BLUE, RED, "--json"]) == 0
    out, err = capsys.readouterr()
    found = json.loads(out)
    assert found["searched"] == 2
    assert [row["picture"] for row in found["pictures"]] == [BLUE, RED]
    lines = sorted(err.splitlines())
    for name, line in zip(("a.png", "f.tif", "half.png"), lines, strict=True):
        start = f"warning: {tmp_path / name} is left out: "
        assert line.startswith(start) and "images[" not in line
    # Nothing else is there.
    assert main.main(words) == 2
    assert "none in" in capsys.readouterr().err.splitlines()[-1]
    # The text is not what is wrong with a picture.
    assert main.main(["rank", "", BLUE]) == 1
    err = capsys.readouterr().err
    assert err.count("\n") == 1 and "`text` must not be empty" in err


@pytest.mark.parametrize("command", ["match", "ask", "embed"])
def test_picture_errors_name_the_file(command, tmp_path, capsys):
    path = str(tmp_path / "f.tif")
    Image.fromarray(np.full((8, 8), 0.5, "float32")).save(path)
    words = [path, "a"] if command != "embed" else ["--image", path]
    assert main.main([command, *words]) == 1
    err = capsys.readouterr().err
    assert path in err and "scale from 0 to 255" in err


def test_fill(run, run_json):
    text = "there is a <mask> shape and a <mask> one."
    masks, filled = task("MaskedLM", "mlm").fill_mask(BLUE, text, top_k=2)
    found = run_json("fill", BLUE, text, "--top-k", 2)
    assert found["filled"] == filled
    assert len(found["masks"]) == len(masks) == 2
    for tokens, wanted in zip(found["masks"], masks, strict=True):
        for row, (token, share) in zip(tokens, wanted, strict=True):
            assert row["token"] == token
            assert row["probability"] == pytest.approx(share, **EXACT)
    lines = run("fill", BLUE, text, "--top-k", 2).splitlines()
    assert len(lines) == 5 and lines[-1] == f"text\t{filled}\t"


def test_entail(run, run_json):
    sentence = "the shape is blue."
    label, shares = task("Entailment", "entailment").entail(BLUE, sentence)
    found = run_json("entail", BLUE, sentence)
    assert found["label"] == label
    assert found["probabilities"] == pytest.approx(shares, **EXACT)
    assert run("entail", BLUE, sentence).split("\t")[0] == label


def test_compare(run, run_json):
    sentence = "both shapes are blue."
    true, share = task("NLVR2", "nlvr2").compare(BLUE, RED, sentence)
    found = run_json("compare", BLUE, RED, sentence)
    assert found["true"] is true is False
    assert found["probability"] == pytest.approx(share, **EXACT)
    assert run("compare", BLUE, RED, sentence) == f"false\t{share:.5f}\n"


def test_embed(run, run_json):
    model = task("Contrastive", "contrastive")
    texts = ["a red circle.", "a blue square."]
    wanted = model.embed(texts=texts)
    found = run_json("embed", "--text", texts[0], "--text", texts[1])
    assert [row["text"] for row in found["embeddings"]] == texts
    vectors = [row["embedding"] for row in found["embeddings"]]
    np.testing.assert_allclose(vectors, wanted, atol=1e-6)

    wanted = model.embed(images=[BLUE, RED])
    printed = run("embed", "--image", BLUE, "--image", RED)
    # For a pipe: a row of numbers for each.
    np.testing.assert_allclose(
        np.loadtxt(printed.splitlines()), wanted, atol=1e-6
    )


def test_predict_equals_ask(run, tmp_path):
    out = tmp_path / "out.jsonl"
    words = ("predict", "bridgetower_tiny_easy_vqa", "vqa", PICTURES, out)
    printed = run(*words, "--text", QUESTION)
    assert printed.startswith("0 rows could not be read")
    rows = [json.loads(line) for line in out.read_text().splitlines()[1:]]
    by_name = {row["image"]: row["answers"][0] for row in rows}
    assert by_name[pathlib.Path(BLUE).name][0] == "blue"
    assert by_name[pathlib.Path(RED).name][0] == "red"
    before = out.read_bytes()
    found = json.loads(run(*words, "--text", QUESTION, "--json"))
    assert found["unreadable_rows"] == 0 and out.read_bytes() == before


def test_predict_counts_errors_of_the_whole_file(run, tmp_path):
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    source.write_text('{"image": "none.png", "text": "what?"}\n{}\n')
    words = ("predict", "bridgetower_tiny_easy_vqa", "vqa", source, out)
    for _ in range(2):
        assert run(*words).startswith("2 rows could not be read")
        assert json.loads(run(*words, "--json"))["unreadable_rows"] == 2


def test_default_presets_are_of_one_family(monkeypatch):
    # No preset of the family judges sentences, or compares two pictures.
    others = {"entailment": "easy_entailment", "nlvr2": "easy_nlvr2"}
    assert set(cli_models.DEFAULTS) > set(others)
    for verb, preset in cli_models.DEFAULTS.items():
        family = f"bridgetower_tiny_{others.get(verb, 'emoji')}"
        assert preset.startswith(family)
    for verb in (verbs.ANSWER, verbs.SCORE, demo.SEARCH, verbs.FILL):
        first = demo.DemoModels().offered((verb,))[0]
        assert first.startswith(table.DEFAULT_FAMILY)
    # It changes in one place.
    monkeypatch.setattr(table, "DEFAULT_FAMILY", "bridgetower_tiny_easy_")
    for verb in (verbs.SCORE, verbs.FILL):
        first = table.shipped_with(verb.heads)[0]
        assert first.startswith("bridgetower_tiny_easy_")


def test_default_of_another_family_prints_its_training_data(capsys):
    words = ["entail", BLUE, "the shape is blue."]
    preset = ["--preset", "bridgetower_tiny_easy_entailment"]
    for more, said in (([], True), (preset, False)):
        assert main.main([*words, *more]) == 0
        out, err = capsys.readouterr()
        assert out.startswith("entailment\t")
        assert ("Using bridgetower_tiny_easy_entailment" in err) == said
        assert ("one colored shape" in err) == said


def test_default_presets_know_emoji(capsys):
    drawings = PICTURES.parent / "drawings"
    duck = str(drawings / "duck.png")

    def printed(*words):
        assert main.main(list(words)) == 0
        return capsys.readouterr().out

    assert printed("ask", duck, "is this a bird?").startswith("yes\t")
    some = [str(path) for path in sorted(drawings.glob("*.png"))[::8]]
    assert printed("rank", "a duck", *some, duck).startswith(f"{duck}\t")
    found = json.loads(printed("match", duck, "a duck", "a dog", "--json"))
    right, wrong = found["matches"]
    assert right["score"] > 0 > wrong["score"]
    apple = str(drawings / "red_apple.png")
    filled = printed("fill", apple, "a <mask> apple")
    assert filled.startswith("mask 1\tred\t")
    texts = printed("embed", "--text", "a duck", "--text", "a guitar")
    image = printed("embed", "--image", duck)
    near, far = np.loadtxt(texts.splitlines()) @ np.loadtxt([image])
    assert near > far + 0.2
