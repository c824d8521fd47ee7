"""Normalised answers, the answer list and soft scores of VQAv2."""

import json
import re

import pytest
from builders import ONE_BACKEND

from keras_bridgetower.metrics import vqa
from keras_bridgetower.metrics.vqa import normalize_answer

pytestmark = ONE_BACKEND
# Computed with the official code.
VECTORS = """
The cat->cat|a->|Yes.->yes|2.5->2.5|3.->3|1,000->1000|1,000 dogs->1000 dogs
yes, no->yes no|yes,no->yes no|red/white->red white|red / white->red white
T-shirt->t shirt|none->0|Ten->10|twenty->twenty|dont know->don't know
its->its|12:30 pm->12:30 pm|girl's->girl's|3 - 4->3 4|a.m.->am|U.S.->us
mr. smith->mr smith|1.5.->1.5|$5->$5|50%->50%|cat & dog->cat & dog
(blue)->blue|one two->1 2|the one->1|Im->im|somebody'd->somebodyd
youre->you're|c++->c|@home->home|1/2->1 2|10,00,000->1000000|..->
a the an->|?->
""".strip()


@pytest.mark.parametrize("vector", re.split(r"[|\n]", VECTORS))
def test_vectors(vector):
    text, expected = vector.split("->")
    assert normalize_answer(text) == expected


def test_contractions():
    table = vqa.CONTRACTIONS
    assert len(table) == 120
    assert table["aint"] == "ain't" and table["twas"] == "'twas"
    assert table["somebody'd"] == "somebodyd"
    assert table["yall'd've"] == "y'all'd've"
    assert table["ow's'at"] == table["'ow'sat"] == "'ow's'at"
    assert [k for k, v in table.items() if k == v] == ["let's", "she's"]
    assert [k for k in table if k != k.lower()] == [
        "Im",
        "Ive",
        "Id've",
        "I'dve",
    ]
    for key, value in table.items():
        if key == key.lower():
            assert normalize_answer(f"well, {key}") == f"well {value}"


def test_at_most_32_periods_go():
    assert normalize_answer("." * 40) == "." * 8


def test_agreement_is_the_rule_of_the_training_targets():
    scores = [vqa.agreement(n) for n in range(11)]
    assert scores == [0, 0.3, 0.6, 0.9] + [1] * 7
    with pytest.raises(ValueError, match="Received: matches=11, people=10"):
        vqa.agreement(11)


def test_soft_scores_normalise_before_they_count():
    ten = ["Red.", "red", "a red", "pink"] + ["1,000"] * 6
    assert vqa.soft_scores(ten) == {"red": 0.9, "pink": 0.3, "1000": 1}
    for bad in ("red", []):
        with pytest.raises(ValueError, match="Received: answers="):
            vqa.soft_scores(bad)
    with pytest.raises(ValueError, match="Received: text=3"):
        vqa.soft_scores([3])


def test_answer_list_follows_first_occurrence(tmp_path):
    def answers(*texts):
        return [{"multiple_choice_answer": text} for text in texts]

    first = answers("Yes.", "no", "a", "yes")
    second = tmp_path / "val.json"
    second.write_text(json.dumps({"annotations": answers("two", "No", "the")}))
    assert vqa.answer_list(first, second, min_count=2) == [
        "yes",
        "no",
        "",
    ]
    assert vqa.answer_list(second, first, min_count=2) == [
        "no",
        "",
        "yes",
    ]
    assert vqa.answer_list(first * 4 + first) == ["yes"]
