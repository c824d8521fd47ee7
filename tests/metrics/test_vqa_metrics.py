"""VQAv2: normalized answers, soft scores and the official evaluation.

The official evaluation is compared with vectors of the official code, and
with a slow version of our own.
"""

import functools
import json
import re

import numpy as np
import pytest
from builders import ONE_BACKEND
from builders import slow_on

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
def test_answers_are_normalized_as_officially(vector):
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
    capitals = ["Im", "Ive", "Id've", "I'dve"]
    assert [k for k in table if k != k.lower()] == capitals
    for key, value in table.items():
        if key == key.lower():
            assert normalize_answer(f"well, {key}") == f"well {value}"


def test_at_most_32_periods_are_deleted():
    assert normalize_answer("." * 40) == "." * 8


def test_agreement_of_ten_people():
    scores = [vqa.agreement(n) for n in range(11)]
    assert scores == [0, 0.3, 0.6, 0.9] + [1] * 7


def test_soft_scores_count_normalized_answers():
    ten = ["Red.", "red", "a red", "pink"] + ["1,000"] * 6
    assert vqa.soft_scores(ten) == {"red": 0.9, "pink": 0.3, "1000": 1}
    for bad in ("red", []):
        with pytest.raises(ValueError, match="Received: answers="):
            vqa.soft_scores(bad)


def test_answers_are_listed_by_first_occurrence(tmp_path):
    def answers(*texts):
        return [{"multiple_choice_answer": text} for text in texts]

    first = answers("Yes.", "no", "a", "yes")
    second = tmp_path / "val.json"
    second.write_text(json.dumps({"annotations": answers("two", "No", "the")}))
    assert vqa.answer_list(first, second, min_count=2) == ["yes", "no", ""]
    assert vqa.answer_list(second, first, min_count=2) == ["no", "", "yes"]
    assert vqa.answer_list(first * 4 + first) == ["yes"]


# The slow version: one character at a time, one person at a time, no code of
# the package but its table of contractions, which is tested above.
@functools.cache
def slow_normalize(text):
    digits = "0123456789"
    middle = range(1, len(text) - 1)
    thousands = any(
        text[i] == "," and text[i - 1] in digits and text[i + 1] in digits
        for i in middle
    )
    pairs = [*zip(text, text[1:], strict=False)]
    touching = {right for left, right in pairs if left == " "}
    touching |= {left for left, right in pairs if right == " "}
    out = ""
    for letter in text:
        if letter in list(';/[]"{}()=+\\_-><@`,?!'):
            out += "" if thousands or letter in touching else " "
        else:
            out += letter
    kept, removed = "", 0
    for i, letter in enumerate(out):
        after = out[i + 1] if i + 1 < len(out) else ""
        if letter == "." and not (after and after in digits) and removed < 32:
            removed += 1
        else:
            kept += letter
    numbers = ["zero", "one", "two", "three", "four", "five", "six", "seven"]
    numbers += ["eight", "nine", "ten"]
    words = []
    for word in kept.lower().split():
        if word == "none":
            word = "0"
        if word in numbers:
            word = str(numbers.index(word))
        if word in ("a", "an", "the"):
            continue
        if word in vqa.CONTRACTIONS:
            word = vqa.CONTRACTIONS[word]
        words.append(word)
    return " ".join(words)


def slow_accuracy(prediction, people):
    texts = [prediction, *(person["answer"] for person in people)]
    texts = [x.replace("\n", " ").replace("\t", " ").strip() for x in texts]
    if len(set(texts[1:])) > 1:
        texts = [slow_normalize(text) for text in texts]
    prediction, *answers = texts
    total = 0.0
    for left_out in range(len(answers)):
        others = answers[:left_out] + answers[left_out + 1 :]
        total += min(1.0, others.count(prediction) / 3)
    return total / len(people)


PIECES = [
    *("yes", "No", "the", "A", "an", "two", "none", "Ten", "dont", "Ive"),
    *("shouldnt've", "let's", "ow's'at", "1,000", "2.5", "3.", "a.m.", "7"),
    *("T-shirt", "red/white", "(blue)", "?", "!", ",", ".", ";", "-", "\\"),
    *(" ", " ", " ", " ", "\t", "\n", "'", '"x"', "$5", "c++", "É", "٣,٤"),
]


def generated(rng, count):
    """Yield questions whose people agree fully, partly or in spelling."""
    for question in range(count):
        pool = [
            "".join(rng.choice(PIECES, rng.integers(1, 5)))
            for _ in range(rng.choice([1, 2, 3, 6]))
        ]
        pool += [pool[0].upper(), f" {pool[0]}.", f"the {pool[-1]}"][
            : rng.integers(0, 4)
        ]
        weights = rng.dirichlet(np.full(len(pool), 0.5))
        texts = rng.choice(pool, 10, p=weights)
        asked = {
            "question_id": question,
            "question_type": str(rng.choice(["is the", "what color", "how"])),
            "answer_type": str(rng.choice(["yes/no", "number", "other"])),
            "answers": [{"answer": str(text)} for text in texts],
        }
        yield asked, {"question_id": question, "answer": str(rng.choice(pool))}


@slow_on("tensorflow")
def test_evaluation_equals_the_slow_version():
    cases = generated(np.random.default_rng(0), 3_000)
    asked, results = zip(*cases, strict=True)
    expected = {
        a["question_id"]: slow_accuracy(r["answer"], a["answers"])
        for a, r in zip(asked, results, strict=True)
    }
    # The cases cover every score, with unanimous answers and without.
    levels = {round(score, 9) for score in expected.values()}
    assert levels == {0.0, 0.3, 0.6, 0.9, 1.0}
    alike = [len({p["answer"] for p in a["answers"]}) == 1 for a in asked]
    assert 300 < sum(alike) < 2_700

    report = vqa.evaluate_vqa(asked, results[::-1], split="generated")
    for a, r in zip(asked, results, strict=True):
        texts = [p["answer"] for p in a["answers"]]
        for text in {r["answer"], *texts}:
            assert normalize_answer(text) == slow_normalize(text)
        score = vqa.score_answer(r["answer"], texts)
        assert score == pytest.approx(expected[a["question_id"]], abs=1e-12)

    def percent(kept):
        scores = [expected[a["question_id"]] for a in kept]
        return round(100 * np.mean(scores), 2)

    assert report.overall == pytest.approx(percent(asked), abs=1e-9)
    for key in ("answer_type", "question_type"):
        found = getattr(report, f"per_{key}")
        assert len(found) == 3
        for kind, score in found.items():
            rows = [a for a in asked if a[key] == kind]
            assert score == pytest.approx(percent(rows), abs=1e-9)
    assert report.per_question == pytest.approx(
        {q: 100 * score for q, score in expected.items()}, abs=1e-9
    )


def test_unanimous_answers_are_not_normalized():
    assert vqa.score_answer("Two", ["two"] * 10) == 0.0
    assert vqa.score_answer(" two\n", ["two", "two\t"] * 5) == 1.0
    assert vqa.score_answer("Two", ["two"] * 9 + ["2"]) == 1.0


def test_only_the_evaluation_strips_answers():
    assert normalize_answer(" -b-c") == "bc"
    assert vqa.score_answer(" -b-c", ["b c"] * 9 + ["d"]) == 1.0


def rows(*ids):
    people = [{"answer": text} for text in ["red"] * 3 + ["blue"] * 7]
    common = {"question_type": "what color", "answer_type": "other"}
    return [{"question_id": i, **common, "answers": people} for i in ids]


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
    assert str(report) == (
        "official VQAv2 accuracy, leave one of the people out; split: "
        "val2014, 2 questions\noverall: 95.00 %\nother: 95.00 %"
    )
    stated = vqa.evaluate_vqa(asked, results, split="minival")
    assert stated.split == "minival"
    bare = vqa.evaluate_vqa(rows(2), [{"question_id": 2, "answer": ""}])
    assert (bare.split, bare.overall) == ("not stated", 0.0)


def test_wrong_ids_are_listed(tmp_path):
    given = [{"question_id": i, "answer": "red"} for i in (1, 4, 1, 5)]
    expected = re.escape(
        "3 questions, 4 answers; 2 without an answer: [2, 3]; 2 answered but "
        "not asked: [4, 5]; 1 answered more than once: [1]"
    )
    path, asked = tmp_path / "results.json", rows(1, 2, 3)
    with pytest.raises(ValueError, match=expected):
        vqa.evaluate_vqa(asked, given)
    with pytest.raises(ValueError, match=expected):
        vqa.write_vqa_results(path, [1, 4, 1, 5], ["red"] * 4, questions=asked)
    with pytest.raises(ValueError, match=r"answered more than once: \[7\]$"):
        vqa.write_vqa_results(path, [7, 7], ["red"] * 2)
    assert not path.exists()
    with pytest.raises(ValueError, match=r"100 without.*, 19\];.*once: \[3\]$"):
        vqa.evaluate_vqa(rows(*range(100), 3), [])


@pytest.mark.parametrize(
    "annotations, results, message",
    [
        (rows(1), [{"question_id": 1, "answer": 2}], "question_id=1, answer=2"),
        (rows(1), [{"answer": "red"}], r"Received: results\[0\]=.*'red'"),
        (rows(1), 3, "`results` must be a list.*Received: results=int"),
        ({"questions": []}, [], "`annotations` must be.*annotations=dict"),
        ([], [], "there must be questions. Received: 0 questions"),
    ],
)
def test_malformed_files_are_rejected(annotations, results, message):
    with pytest.raises(ValueError, match=message):
        vqa.evaluate_vqa(annotations, results)
