"""Examples run offline and print what they promise; so does the benchmark."""

import ast
import inspect
import os
import pathlib
import re
import runpy
import subprocess
import sys
from types import SimpleNamespace

import example
import gallery
import miniature_run
import pytest
from builders import FASTEST
from builders import roberta
from PIL import Image
from turns.rounds import ContenderFailed
from turns.rounds import Fresh
from turns.rounds import Rounds
from turns.rounds import Saved
from turns.rounds import summary
from turns.works import Contender
from turns.works import Work

import keras_bridgetower as kbt
from keras_bridgetower.apps.cli import data
from keras_bridgetower.training.recipes import paper
from keras_bridgetower.training.recipes import task_of_recipe

pytestmark = FASTEST

ROOT = pathlib.Path(__file__).parents[2]


def run(script, *arguments, cwd):
    result = subprocess.run(
        [sys.executable, str(ROOT / "examples" / script), *arguments],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
    )
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_gallery_page_has_all_examples():
    """Every script that runs has a header, and its figure is there."""
    scripts = (ROOT / "examples").glob("*.py")
    run_alone = {p.stem for p in scripts if "__main__" in p.read_text()}
    assert set(gallery.NAMES) == run_alone
    assert gallery.PAGE.read_text() == gallery.page(), "run tools/gallery.py"
    for name in gallery.NAMES:
        doc = ast.get_docstring(
            ast.parse((ROOT / "examples" / f"{name}.py").read_text())
        )
        assert tuple(gallery.fields(doc)) == example.FIELDS
        figure = gallery.PICTURES / f"{name}.png"
        assert figure.stat().st_size < 100_000
        with Image.open(figure) as picture:
            assert 500 <= picture.width <= gallery.WIDEST


@pytest.mark.slow
def test_ask(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    path = str(ROOT / "examples" / "ask.py")
    monkeypatch.setattr(sys, "argv", [path])
    runpy.run_path(path, run_name="__main__")
    printed = capsys.readouterr().out
    assert "octopus.png: what kind of thing is it?  ->  sea animal" in printed
    assert "strawberry.png: what color is it mostly?  ->  red" in printed
    with Image.open(tmp_path / "out/ask/attention.png") as picture:
        assert picture.size == (1100, 350)
        assert len(picture.convert("L").getcolors()) > 20


@pytest.mark.parametrize(
    "script, arguments, picture",
    [
        ("fill_mask", (), "filled.png"),
        *(
            pytest.param(*case, marks=pytest.mark.slow)
            for case in (
                ("embed_search", (), "hits.png"),
                ("entail", ("--rows", "90"), "entailed.png"),
                ("compare", ("--rows", "84"), "compared.png"),
                ("match_and_rank", ("--pictures", "6"), "ranked.png"),
                (
                    "finetune_vqa",
                    ("--epochs", "3", "--pictures", "400"),
                    "learned.png",
                ),
            )
        ),
    ],
)
def test_task_beats_the_blind_score(
    script, arguments, picture, tmp_path, monkeypatch, capsys
):
    pytest.importorskip("easy_vqa")
    monkeypatch.chdir(tmp_path)
    path = str(ROOT / "examples" / f"{script}.py")
    monkeypatch.setattr(sys, "argv", [path, *arguments])
    runpy.run_path(path, run_name="__main__")
    printed = capsys.readouterr().out
    # The last such line is that of all together.
    found = re.findall(r"([\d.]+) % right \(.*?([\d.]+) %\)", printed)
    score, blind = map(float, found[-1])
    assert score > blind + 5
    with Image.open(tmp_path / "out" / script / picture) as sheet:
        assert len(sheet.convert("L").getcolors()) > 20


@pytest.mark.slow
def test_reranker_learns_from_judged_lists(tmp_path):
    pytest.importorskip("easy_vqa")
    printed = run("finetune_reranker.py", cwd=tmp_path)
    found = re.findall(r"nDCG@10, .*: ([\d.]+)", printed)
    search, before, after = map(float, found)
    assert after > max(search, before) + 0.03


def test_a_miniature_has_all_settings_of_the_command(monkeypatch):
    given = []
    monkeypatch.setattr(
        miniature_run.train, "run", lambda *values, **_: given.append(values)
    )
    miniature_run.main("", ["vqa_base"], [])
    ((_, settings, *_),) = given
    options = inspect.signature(data.train).parameters.keys()
    others = {"context", "data", "out", "changes", "as_json"}
    assert options - others <= vars(settings).keys()


@pytest.mark.slow
def test_recipe_in_miniature(tmp_path):
    pytest.importorskip("easy_vqa")
    few = ("--records", "16", "--set", "steps=2", "batch_size=8")
    printed = run("pretrain.py", *few, cwd=tmp_path)
    assert "batch_size: 8   [paper: 4096]" in printed
    assert re.search(r"test: itm_accuracy [\d.]+, mlm_accuracy", printed)
    preset = tmp_path / "runs" / "pretrain_base-tiny" / "preset"
    # A new contrastive head chooses the pairs that are fused; two batches make
    # an update.
    few = ("flickr30k_base", "--init", str(preset), *few)
    few = (*few, "accumulation=2", "shortlist=4")
    printed = run("finetune.py", *few, cwd=tmp_path)
    assert "accumulation: 2   [paper: 8]" in printed
    assert "4/" in printed and "blind, on test: RSUM of all test" in printed
    for split in ("validation", "test"):
        pool = f"{split}: .*RSUM of 16 pictures, 80 texts by a shortlist of 4 "
        assert re.search(pool, printed)
    # What was done stays done: called again, nothing is trained.
    assert "4/" not in run("finetune.py", *few, cwd=tmp_path)


@pytest.mark.slow
def test_every_variant_of_the_ablations_can_be_built():
    """tests/models/test_backbone.py has the paper's counts of the library."""
    pytest.importorskip("matplotlib")
    from ablation_variants import BASE
    from ablation_variants import COUNTS
    from ablation_variants import STUDIES
    from ablation_variants import TINY

    assert {n: len(s.variants(TINY)) for n, s in STUDIES.items()} == {
        **{"definition": 9, "layers": 10, "bridges": 5},
        **{"managers": 4, "encoders": 12, "cross_encoder": 4},
    }
    for study in STUDIES.values():
        assert all(COUNTS["model"](v, TINY) for v in study.variants(TINY))
    assert len(STUDIES["layers"].variants(BASE)) == 16


def test_text_length_beyond_the_positions_is_rejected():
    """Before the first step, which would fail inside an embedding."""
    encoder = roberta(layers=1)
    tokenizer = SimpleNamespace(sequence_length=8)
    task = SimpleNamespace(
        backbone=SimpleNamespace(text_encoder=encoder),
        preprocessor=SimpleNamespace(tokenizer=tokenizer),
    )
    with pytest.raises(
        ValueError, match="--set text_length=64.*text_length=65"
    ):
        task_of_recipe.set_text_length(task, 65)
    task_of_recipe.set_text_length(task, 64)
    assert tokenizer.sequence_length == 64


@pytest.mark.parametrize(
    "preset,anew",
    [
        ("bridgetower_tiny_easy_vqa", False),
        ("bridgetower_tiny_easy_pretrain", True),
    ],
)
def test_new_poolers_only_below_a_new_head(preset, anew, monkeypatch):
    reset = []

    def noted(fusion):
        reset.append(fusion)

    monkeypatch.setattr(kbt.CrossModalEncoder, "reset_poolers", noted)
    recipe = paper.get("vqa_base").tiny()
    cls = kbt.BridgeTowerVQAPreprocessor
    answers = cls.from_preset("bridgetower_tiny_easy_vqa").answers
    task = task_of_recipe.from_preset(recipe, preset, list(answers))
    assert reset == [task.backbone.fusion] * anew


def test_ratios_compare_consecutive_turns():
    # Ratios 3, 1, 5, 2, 4: that a machine becomes slower changes none.
    pairs = [(2.0, 6.0), (1.0, 1.0), (1.0, 5.0), (40.0, 80.0), (0.5, 2.0)]
    found = summary(pairs)
    assert [found[k] for k in ("low", "ratio", "high")] == [2.0, 3.0, 4.0]
    assert (found["seconds"], found["reference"]) == (1.0, 5.0)


@pytest.fixture
def saved(tmp_path):
    """A saved model that nobody reads."""
    files = Saved(tmp_path, "small")
    files.path("checkpoint").mkdir(parents=True)
    return files


def work(**programs):
    """Return a work whose contenders run code of Python."""
    contenders = [
        Contender(name, "keras_bridgetower", "reference", settings={"code": x})
        for name, x in programs.items()
    ]
    return Work("any", "program", contenders, fresh=True)


def test_rounds_compare_outputs_and_seconds(saved):
    programs = work(
        reference="""print('{"seconds": 3, "outputs": [[4, 2]]}')""",
        ours="""print('{"seconds": 2, "outputs": [[4, 3]], "x": 7}')""",
    )
    rounds = Rounds(programs, saved, repeats=2)
    (found,) = rounds.rows(programs.contenders[1], batches=[1], tokens=8)
    assert found == {
        **{"name": "ours", "beside": "reference", "batch": 1},
        **{"distance": 0.25, "seconds": 2, "reference": 3, "x": 7},
        **dict.fromkeys(("ratio", "low", "high"), 1.5),
    }


@pytest.mark.parametrize(
    "code, error",
    [
        ("raise ValueError('no such model')", "^ValueError: no such model$"),
        ("import os; os.kill(os.getpid(), 9)", "killed.*memory"),
    ],
)
def test_a_failed_process_gives_its_error(code, error, saved):
    one = work(one=code)
    turn = Fresh(one, one.contenders[0], saved)
    with pytest.raises(ContenderFailed, match=error):
        turn.ask()
