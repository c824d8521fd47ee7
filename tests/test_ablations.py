"""The paper's ablations: columns of parameters, runs that go on, errors."""

import json
import sys

import keras
import pytest

pytest.importorskip("matplotlib")

import ablation_training  # noqa: E402
import ablations  # noqa: E402
from ablation_variants import BASE  # noqa: E402
from ablation_variants import COUNTS  # noqa: E402
from ablation_variants import STUDIES  # noqa: E402
from ablation_variants import TINY  # noqa: E402

# Nothing here depends on the backend but one run.
pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="runs once, in the fastest pass"
)


def as_number(text):
    return float(text[:-1]) * {"K": 1e3, "M": 1e6}[text[-1]]


@pytest.mark.parametrize(
    "study", [pytest.param("definition", marks=pytest.mark.slow), "layers"]
)
def test_parameter_counts_equal_the_paper(study):
    counted = COUNTS[STUDIES[study].counted]
    for variant in STUDIES[study].variants(BASE):
        count = counted(variant, BASE)
        published = as_number(variant.paper["parameters"])
        # To the last digit that the paper prints, or one off.
        step = 100 if published < 1e6 else 100_000
        assert abs(round(count / step) * step - published) <= 1.01 * step


def test_parameters_of_managers():
    study = STUDIES["managers"]
    counts = [COUNTS[study.counted](v, BASE) for v in study.rows]
    # With 9,216 of layer embeddings, without 12 unused temperatures.
    assert counts[:2] == [0, 18_432]
    assert counts[3] == 12_062_292 - 12 + 9_216


@pytest.mark.slow
def test_every_variant_can_be_built():
    assert {n: len(s.variants(TINY)) for n, s in STUDIES.items()} == {
        **{"definition": 9, "layers": 10, "bridges": 5},
        **{"managers": 4, "encoders": 12, "cross_encoder": 4},
    }
    for study in STUDIES.values():
        assert all(COUNTS["model"](v, TINY) for v in study.variants(TINY))
    assert len(STUDIES["layers"].variants(BASE)) == 16


class Counting:
    """A bench that trains nothing and counts its runs."""

    runs = []

    def __init__(self, settings, folder, size):
        assert folder.exists()

    def vqa(self, variant, seed):
        if len(self.runs) == 3 and seed == 0:
            self.runs.append(None)
            raise KeyboardInterrupt
        self.runs.append((variant.name, seed))
        return {"overall": 70.0 + len(self.runs)}

    def rsum(self, variant, seed):
        return None


def command(monkeypatch, study, output, *arguments):
    line = ["ablations.py", study, "--output", str(output), *arguments]
    monkeypatch.setattr(sys, "argv", line)
    ablations.main()


@pytest.mark.slow
def test_interrupted_tables_continue(tmp_path, monkeypatch):
    monkeypatch.setattr(ablation_training, "Bench", Counting)
    monkeypatch.setattr(Counting, "runs", [])
    output = tmp_path / "runs"
    call = monkeypatch, "bridges", output
    with pytest.raises(KeyboardInterrupt):
        command(*call, "--seeds", "0")
    assert len(Counting.runs) == 4
    command(*call, "--seeds", "0")
    names = [run[0] for run in Counting.runs if run]
    assert names == ["6+0", "4+2", "3+3", "2+4", "0+6, METER"]
    # Another seed is added to what is there.
    command(*call, "--seeds", "0", "1")
    assert len(Counting.runs) == 11
    table = (output / "table.md").read_text()
    assert "| 6+0 | " in table and " ± " in table
    assert "| 75.18 | 533.8 |" in table and "| 67.00 |" in table
    assert (output / "table.csv").read_text().count("\n") == 6
    assert (output / "figure.png").stat().st_size > 5_000


def test_folders_of_other_settings_are_rejected(tmp_path):
    assert ablations.mean_and_spread([1.0, None, 3.0]) == "2.00 ± 1.41"
    made = ablations.folder_of(tmp_path / "a", {"steps": 3, "size": (1, 2)})
    assert made == ablations.folder_of(made, {"steps": 3, "size": [1, 2]})
    with pytest.raises(ValueError, match="new folder.*steps=4, there 3"):
        ablations.folder_of(made, {"steps": 4, "size": [1, 2]})


@pytest.mark.slow
def test_the_command_trains(tmp_path, monkeypatch):
    steps = "--steps 3 --tower-epochs 1 --retrieval-steps 3 --text-steps 3"
    command(
        *(monkeypatch, "cross_encoder", tmp_path / "runs"),
        *("--seeds", "0", *steps.split()),
    )
    (result,) = (tmp_path / "runs").glob("co_attention, METER*.json")
    assert set(json.loads(result.read_text())) == {"vqa", "rsum", "seconds"}
