"""Commands that ask a model give what the Python methods give."""

import json
import pathlib

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import one_layer_each
from builders import vqa
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import models as cli_models
from keras_bridgetower.apps.demo import models as demo
from keras_bridgetower.apps.search.models import match_files
from keras_bridgetower.presets import table
from keras_bridgetower.presets import verbs

pytestmark = [FASTEST, pytest.mark.usefixtures("opened_once")]
PICTURES = pathlib.Path(__file__).parents[2] / "examples/pictures"
BLUE = str(PICTURES / "easy_vqa_test_6.png")
RED = str(PICTURES / "easy_vqa_test_8.png")
TEXTS = ["a medium blue circle in the west.", "a medium red triangle."]
BLANKS = "there is a <mask> shape and a <mask> one."


def pairs(names, rows):
    return [dict(zip(names, row, strict=True)) for row in rows]


# Preset, method, arguments and options of a command, and what it prints as
# JSON and as its first line, of the result of the method.
COMMANDS = {
    "ask": (
        ("VQA", "answer", [BLUE, "what color is the shape?"], {"top_k": 3}),
        lambda found: {"answers": pairs(("answer", "score"), found)},
        lambda found: f"{found[0][0]}\t{found[0][1]:.5f}",
    ),
    "fill": (
        ("MaskedLM", "fill_mask", [BLUE, BLANKS], {"top_k": 2}),
        lambda found: {
            "masks": [pairs(("token", "probability"), m) for m in found[0]],
            "filled": found[1],
        },
        lambda found: f"mask 1\t{found[0][0][0][0].strip()}",
    ),
    "entail": (
        ("Entailment", "entail", [BLUE, "the shape is blue."], {}),
        lambda found: {"label": found[0], "probabilities": found[1]},
        lambda found: f"{found[0]}\t",
    ),
    "compare": (
        ("NLVR2", "compare", [BLUE, RED, "both shapes are blue."], {}),
        lambda found: {"true": found[0], "probability": found[1]},
        lambda found: f"false\t{found[1]:.5f}",
    ),
    "match": (
        ("Retrieval", "score", [BLUE, TEXTS], {}),
        lambda found: {
            "matches": pairs(
                ("text", "probability", "score"),
                zip(TEXTS, 1 / (1 + np.exp(-found)), found, strict=True),
            )
        },
        lambda found: f"{TEXTS[0]}\t{1 / (1 + np.exp(-found[0])):.5f}",
    ),
}


def check_equal(found, wanted):
    """Compare nested plain values, numbers to rounding."""
    if isinstance(wanted, dict):
        assert found.keys() == wanted.keys()
        found, wanted = list(found.values()), list(wanted.values())
    if isinstance(wanted, list):
        for one, other in zip(found, wanted, strict=True):
            check_equal(one, other)
    elif isinstance(wanted, (bool, str)):
        assert found == wanted
    else:
        assert found == pytest.approx(float(wanted), abs=1e-4)


@pytest.mark.parametrize("command", COMMANDS)
def test_commands_give_what_methods_give(command, run):
    (name, method, given, options), as_json, as_line = COMMANDS[command]
    task = getattr(kbt, f"BridgeTower{name}")
    named = {"MaskedLM": "mlm"}.get(name, name.lower())
    preset = f"bridgetower_tiny_easy_{named}"
    bars = keras.config.is_interactive_logging_enabled()
    wanted = getattr(task.from_preset(preset), method)(*given, **options)
    words = [command, *given[:-1], *np.ravel(given[-1]), "--preset", preset]
    words += [w for k in options for w in ("--top-k", options[k])]
    printed = run(*words, "--json").out
    # One document, on one line.
    assert printed.count("\n") == 1
    found = json.loads(printed)
    assert found["preset"] == preset
    for key, value in as_json(wanted).items():
        check_equal(found[key], value)
    said = run(*words)
    assert said.out.startswith(as_line(wanted)) and said.err == ""
    # The command hides the bars of Keras while it runs.
    assert keras.config.is_interactive_logging_enabled() is bars


def test_rank_holds_no_large_pictures(tmp_path, monkeypatch):
    """Neither those of a batch, nor what was read of damaged ones."""
    task = kbt.BridgeTowerRetrieval.from_preset(
        "bridgetower_tiny_easy_retrieval"
    )
    path, half = tmp_path / "large.png", tmp_path / "half.png"
    Image.open(BLUE).resize((900, 900)).save(path)
    half.write_bytes(path.read_bytes()[:-99])
    sizes, score = [], task.score_states
    monkeypatch.setattr(
        task,
        "score_states",
        lambda images, *rest: (
            sizes.extend(np.size(image) for image in images)
            or score(images, *rest)
        ),
    )
    *found, error = match_files(task, [path, path, half], TEXTS[0], 2)
    wanted = task.score([path] * 2, TEXTS[0])
    assert found == pytest.approx(wanted, abs=1e-4)
    assert max(sizes) == 3 * task.backbone.image_size**2
    assert isinstance(error, ValueError) and error.__traceback__ is None


def test_rank_orders_pictures_and_skips_damaged_ones(tmp_path, run):
    """Files that are no picture, or whose head alone is that of one."""
    whole = pathlib.Path(BLUE).read_bytes()
    Image.fromarray(np.full((8, 8), 0.5, "float32")).save(tmp_path / "f.tif")
    (tmp_path / "half.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "notes.txt").write_text("no picture")
    preset = "bridgetower_tiny_easy_retrieval"
    words = ["rank", TEXTS[0], tmp_path, "--preset", preset]
    said = run(*words, RED, BLUE, "--json")
    task = kbt.BridgeTowerRetrieval.from_preset(preset)
    wanted = task.rank([BLUE, RED], [TEXTS[0]], verbose=0)[:, 0]
    found = json.loads(said.out)
    assert found["searched"] == 2
    for one, path, score in zip(
        found["pictures"], (BLUE, RED), wanted, strict=True
    ):
        check_equal(one, {"picture": path, "score": score})
    names = [line.split(" is left out: ")[0] for line in said.err.splitlines()]
    assert names == [f"warning: {tmp_path / n}" for n in ("f.tif", "half.png")]
    assert run(*words, PICTURES, "--top-k", 1).out.startswith(f"{BLUE}\t")
    assert "none in" in run(*words, code=2).err.splitlines()[-1]
    # The text is not what is wrong with a picture.
    said = run("rank", "", BLUE, code=1).err
    assert said.count("\n") == 1 and "`text` must not be empty" in said


def test_embed(run):
    preset = ("--preset", "bridgetower_tiny_easy_contrastive")
    model = kbt.BridgeTowerContrastive.from_preset(preset[1])
    texts = [w for text in TEXTS for w in ("--text", text)]
    images = ["--image", BLUE, "--image", RED]
    for words, given in (
        (texts, {"texts": TEXTS}),
        (images, {"images": [BLUE, RED]}),
        ([*texts, *images], {"texts": TEXTS, "images": [BLUE, RED]}),
    ):
        wanted = model.embed(**given)
        rows = json.loads(run("embed", *words, *preset, "--json").out)
        for i, row in enumerate(rows["embeddings"]):
            np.testing.assert_allclose(
                row.pop("embedding"), wanted[i], atol=1e-6
            )
            assert row == {name[:-1]: given[name][i] for name in given}
        # For a pipe: a row of numbers for each.
        printed = run("embed", *words, *preset).out.splitlines()
        np.testing.assert_allclose(np.loadtxt(printed), wanted, atol=1e-6)


def test_predict_equals_ask(run, tmp_path):
    (tmp_path / "bad.png").write_text("")
    source, out = tmp_path / "rows.jsonl", tmp_path / "out.jsonl"
    row = {"image": BLUE, "text": "what color is the shape?"}
    rows = [row, row | {"image": RED}, row | {"image": "bad.png"}]
    source.write_text("\n".join(map(json.dumps, rows)))
    words = ("predict", "bridgetower_tiny_easy_vqa", "vqa", source, out)
    printed = run(*words, "--outside").out
    assert printed == (
        "1 rows could not be read; each has a line with its error.\n"
    )
    _, *rows = [json.loads(line) for line in out.read_text().splitlines()]
    assert [r["answers"][0][0] for r in rows[:2]] == ["blue", "red"]
    # A second call computes nothing and reports the errors in the file.
    before = out.read_bytes()
    found = json.loads(run(*words, "--outside", "--json").out)
    assert found["unreadable_rows"] == 1 and out.read_bytes() == before


def test_default_presets_are_of_one_family(monkeypatch):
    # No preset of the family judges sentences, or compares two pictures.
    others = {"entailment": "easy_entailment", "nlvr2": "easy_nlvr2"}
    assert set(cli_models.DEFAULTS) > set(others)
    for verb, preset in cli_models.DEFAULTS.items():
        family = f"bridgetower_tiny_{others.get(verb, 'emoji')}"
        assert preset.startswith(family)
    for verb in (verbs.ANSWER, verbs.SCORE, demo.SEARCH, verbs.FILL):
        first = demo.DemoModels().offered((verb,))[0]
        assert first.startswith(table.default_family())
    # It changes in one place.
    monkeypatch.setattr(table, "FAMILIES", ("bridgetower_tiny_easy_",))
    for verb in (verbs.SCORE, verbs.FILL):
        first = table.shipped_with(verb.heads)[0]
        assert first.startswith("bridgetower_tiny_easy_")


def test_ask_says_what_it_does_not_know(run, tmp_path):
    task = vqa(**one_layer_each())
    for threshold, known in ((999.0, False), (-999.0, True)):
        task.rejection = {"kind": "energy", "threshold": threshold}
        task.save_to_preset(tmp_path / str(known))
        words = ("ask", BLUE, "what?", "--preset", tmp_path / str(known))
        said = run(*words)
        found = json.loads(run(*words, "--top-k", 2, "--json").out)
        assert found["known"] is known
        best, other = (
            (row["answer"], f"{100 * row['score']:.1f} %")
            for row in found["answers"]
        )
        # Nothing reads like a second answer.
        assert said.out == (
            f"{best[0]} ({best[1]}, sure)\n"
            if known
            else f"I do not know. Best guess: {best[0]} ({best[1]})\n"
        )
        assert said.err == ("" if known else f"{verbs.UNKNOWN}\n")
        both = run(*words, "--top-k", 2).out
        assert f"{other[0]} ({other[1]})" in both


def test_default_presets_know_emoji(run):
    duck = PICTURES.parent / "drawings/duck.png"
    said = run("ask", duck, "is this a bird?")
    assert said.out.startswith("yes\t")
    # One line says how to get those that know photographs.
    assert said.err.startswith("Used bridgetower_tiny_emoji_vqa, which was ")
    assert said.err.endswith(": `pip install ./preset_packages/photos`.\n")
    assert said.err.count("\n") == 1
