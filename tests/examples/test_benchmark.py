"""The benchmark: its arithmetic, its tables, and a whole run."""

import numpy as np
import pytest
from builders import FASTEST
from turns.rounds import ContenderFailed
from turns.rounds import Fresh
from turns.rounds import Rounds
from turns.rounds import Saved
from turns.rounds import distance
from turns.rounds import summary
from turns.works import Contender
from turns.works import Work

pytestmark = FASTEST


@pytest.mark.parametrize(
    "pairs, ratios",
    [
        # Ratios 1, 2, 3, 4, 5, in another order.
        (
            [(2.0, 6.0), (1.0, 1.0), (1.0, 5.0), (4.0, 8.0), (0.5, 2.0)],
            [2.0, 3.0, 4.0],
        ),
        # A machine that becomes ten times slower changes no ratio.
        ([(1.0, 2.0), (1.0, 2.0), (10.0, 20.0), (10.0, 20.0)], [2.0] * 3),
    ],
)
def test_ratios_compare_consecutive_turns(pairs, ratios):
    found = summary(pairs)
    assert [found[k] for k in ("low", "ratio", "high")] == ratios
    medians = np.median(pairs, axis=0).tolist()
    assert [found["seconds"], found["reference"]] == medians


def test_distance_is_relative_to_the_largest_output():
    assert distance([[1.0, -3.0]], [[2.0, -4.0]]) == 0.25
    with pytest.raises(ValueError):
        distance([[1.0]], [[1.0, 2.0]])


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


def turn(code, saved):
    """Take a turn of a contender that runs code."""
    one = work(one=code)
    return Fresh(one, one.contenders[0], saved).ask()


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
    with pytest.raises(ContenderFailed, match=error):
        turn(code, saved)
