"""VQAv2: normalized answers, soft scores and the official evaluation.

The vectors were computed with the official code.
"""

import json
import re

import numpy as np
import pytest
from builders import ONE_BACKEND

from keras_bridgetower.metrics import vqa
from keras_bridgetower.metrics.vqa import normalize_answer

pytestmark = ONE_BACKEND
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
def test_answers_are_normalized_as_officially(vector):
    text, expected = vector.split("->")
    assert normalize_answer(text) == expected


def test_contractions_and_many_periods():
    # At most 32 of them are deleted.
    assert normalize_answer("." * 40) == "." * 8
    assert len(vqa.CONTRACTIONS) == 120
    for key, value in vqa.CONTRACTIONS.items():
        if key == key.lower():
            assert normalize_answer(f"well, {key}") == f"well {value}"


def test_agreement_of_ten_people():
    scores = [vqa.agreement(n) for n in range(11)]
    assert scores == [0, 0.3, 0.6, 0.9] + [1] * 7


def test_soft_scores_count_normalized_answers():
    ten = ["Red.", "red", "a red", "pink"] + ["1,000"] * 6
    assert vqa.soft_scores(ten) == {"red": 0.9, "pink": 0.3, "1000": 1}
    assert vqa.soft_scores(iter(ten)) == vqa.soft_scores(ten)
    for bad in ("red", [], ["red", 2]):
        for score in (vqa.soft_scores, lambda of: vqa.score_answer("red", of)):
            with pytest.raises(ValueError, match="`answers`"):
                score(bad)


def test_answers_are_listed_by_first_occurrence(tmp_path):
    def answers(*texts):
        return [{"multiple_choice_answer": text} for text in texts]

    first = answers("Yes.", "no", "a", "yes")
    second = tmp_path / "val.json"
    second.write_text(json.dumps({"annotations": answers("two", "No", "the")}))
    assert vqa.answer_list(first, second, min_count=2) == ["yes", "no", ""]
    assert vqa.answer_list(second, first, min_count=2) == ["no", "", "yes"]
    assert vqa.answer_list(first * 4 + first) == ["yes"]


def test_unanimous_answers_are_not_normalized():
    assert vqa.score_answer("Two", ["two"] * 10) == 0.0
    assert vqa.score_answer(" two\n", ["two", "two\t"] * 5) == 1.0
    assert vqa.score_answer("Two", ["two"] * 9 + ["2"]) == 1.0
    # Only the evaluation strips answers.
    assert normalize_answer(" -b-c") == "bc"
    assert vqa.score_answer(" -b-c", ["b c"] * 9 + ["d"]) == 1.0


def rows(*ids):
    people = [{"answer": text} for text in ["red"] * 3 + ["blue"] * 7]
    return [
        {"question_id": i, "answers": people}
        | {"question_type": f"what {i}", "answer_type": "other"}
        for i in ids
    ]


def test_results_are_written_and_evaluated(tmp_path):
    asked = tmp_path / "annotations.json"
    content = {"data_subtype": "val2014", "annotations": rows(1, 2)}
    asked.write_text(json.dumps(content))
    results = tmp_path / "results.json"
    ids, answers = np.array([2, 1]), ["red", "blue"]
    vqa.write_vqa_results(results, ids, answers, questions=str(asked))
    assert json.loads(results.read_text()) == [
        {"question_id": 2, "answer": "red"},
        {"question_id": 1, "answer": "blue"},
    ]
    report = vqa.evaluate_vqa(asked, str(results))
    assert report.per_question == {1: 100.0, 2: 90.0}
    assert report.per_question_type == {"what 1": 100.0, "what 2": 90.0}
    assert report.per_answer_type == {"other": 95.0}
    assert "val2014, 2 questions\noverall: 95.00 %" in str(report)
    bare = vqa.evaluate_vqa(rows(2), [{"question_id": 2, "answer": ""}])
    assert (bare.split, bare.overall) == ("not stated", 0.0)


def test_wrong_ids_are_listed(tmp_path):
    given = [{"question_id": i, "answer": "red"} for i in (1, 4, 1, 5)]
    expected = r"3 questions once.* 5 ids .*\[1, 2, 3, 4, 5\]"
    path, asked = tmp_path / "results.json", rows(1, 2, 3)
    with pytest.raises(ValueError, match=expected):
        vqa.evaluate_vqa(asked, given)
    with pytest.raises(ValueError, match=expected):
        vqa.write_vqa_results(path, [1, 4, 1, 5], ["red"] * 4, questions=asked)
    with pytest.raises(ValueError, match=r"repeated, \[7\]$"):
        vqa.write_vqa_results(path, [7, 7], ["red"] * 2)
    assert not path.exists()
    with pytest.raises(ValueError, match="100 ids missing"):
        vqa.evaluate_vqa(rows(*range(100), 3), [])


def test_malformed_files_are_rejected():
    for annotations, results, named in (
        (rows(1), [{"question_id": 1, "answer": 2}], "answer=2"),
        (rows(1), [{"answer": "red"}], "`results`"),
        ({"questions": []}, [], "`annotations`"),
        ([], [], "0 questions"),
    ):
        with pytest.raises(ValueError, match=named):
            vqa.evaluate_vqa(annotations, results)
