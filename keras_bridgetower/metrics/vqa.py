"""VQAv2: answer normalization, soft scores, the official evaluation."""

import collections
import dataclasses
import json
import os
import pathlib
import re

from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import read_json

# Punctuation that is removed. Apostrophe, colon, period and signs such as
# "$", "%", "&" are kept.
MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()
    )
} | {"none": "0"}

# Keys are spellings that lack an apostrophe.
CONTRACTIONS = read_json(pathlib.Path(__file__).with_name("contractions.json"))

PROTOCOL = "official VQAv2 accuracy, leave one of the people out"
# Ids that an error lists. A split may have 447,793.
MOST_LISTED = 20
# Not \d, which matched only these digits in the original's Python 2.
_COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
_PERIOD = re.compile(r"\.(?![0-9])")
# The original passes a flag of this value as the argument `count`.
_MOST_PERIODS = 32


def normalize_answer(text):
    """Normalize an answer as VQAv2 does before comparing answers.

    Punctuation next to a space is deleted; other punctuation becomes a space.
    If a comma is between two digits, all punctuation is deleted. Periods are
    deleted unless a digit follows. Text is lowercased, number words up to ten
    become digits, articles are removed, and contractions get their apostrophe.
    The result may be empty. `evaluate_vqa` strips the text first, as the
    official evaluation does; `answer_list` does not.

    Args:
        text: str.

    Returns:
        str.

    Example:

    ```python
    normalize_answer("The T-shirt.")  # "t shirt"
    normalize_answer("dont know")  # "don't know"
    ```

    Source: `vqaEval.py` of the VQA challenge; BridgeTower's
    `normalize_word`.
    """
    delete_all = _COMMA_IN_NUMBER.search(text)
    marks = {
        mark: ""
        if delete_all or f" {mark}" in text or f"{mark} " in text
        else " "
        for mark in MARKS
        if mark in text
    }
    text = text.translate(str.maketrans(marks))
    text = _PERIOD.sub("", text, count=_MOST_PERIODS)
    words = (NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(
        CONTRACTIONS.get(word, word) for word in words if word not in ARTICLES
    )


def agreement(matches, people=10):
    """Return the official accuracy of an answer that some people gave.

    Each person is left out in turn. The answer scores one third for each of
    the other people who gave it, at most 1. The result is the mean: for ten
    people 0, 0.3, 0.6, 0.9, 1, 1, ...

    Args:
        matches: int, number of people who gave the answer.
        people: int, number of people who were asked.

    Source: `vqaEval.py` of the VQA challenge.
    """
    # Summed in thirds, so that the result is exact: 9 / 30 is the float 0.3.
    one_of_them, another = min(3, matches - 1), min(3, matches)
    thirds = matches * one_of_them + (people - matches) * another
    return thirds / (3 * people)


def soft_scores(answers):
    """Compute soft scores of the answers to one question, as targets.

    Answers are normalized before they are counted, as in the BridgeTower
    tables named `_fix`. ViLT and METER count them as typed, and so lose
    answers that are spelled differently in the answer list.

    Args:
        answers: list of str, the answer of each person.

    Returns:
        dict from normalized answer to float score in 0..1, in the order of
        first occurrence.

    Raises:
        ValueError: no answers, or a single string.

    Example:

    ```python
    soft_scores(["Red."] * 2 + ["red"] + ["pink"] * 7)
    # {"red": 0.9, "pink": 1.0}
    ```

    Source: VQAv2, by the counting of BridgeTower's `_fix` tables.
    """
    answers = _listed(answers)
    counts = collections.Counter(map(normalize_answer, answers))
    return {text: agreement(n, len(answers)) for text, n in counts.items()}


def answer_list(*annotations, min_count=9):
    """List the classes of a VQA model, in the order of their ids.

    The classes are the normalized `multiple_choice_answer`s that occur often
    enough, by first occurrence. So the order of the files matters: training
    before validation gives the published 3,129 answers. One class may be the
    empty string, the normal form of a single article.

    Args:
        *annotations: paths of annotation files, or their content, as in
            `evaluate_vqa`.
        min_count: int, minimum number of occurrences of an answer.

    Returns:
        list of str.

    Raises:
        ValueError: a file without annotations.

    Example:

    ```python
    rows = [{"multiple_choice_answer": a} for a in ("Yes.", "no", "yes")]
    answer_list(rows, min_count=2)  # ["yes"]
    ```

    Source: BridgeTower's `write_vqa.py`.
    """
    counts = collections.Counter(
        normalize_answer(answer)
        for source in annotations
        for (answer,) in read_rows(
            "annotations", source, ("multiple_choice_answer",)
        )
    )
    return [answer for answer, n in counts.items() if n >= min_count]


@dataclasses.dataclass(frozen=True)
class VQAReport:
    """Accuracies in percent; `print` shows them with protocol and split.

    Args:
        overall: float, mean over all questions, rounded to two decimals.
        per_answer_type: dict from answer type to the mean of its questions.
        per_question_type: dict from question type to the mean of its
            questions.
        per_question: dict from question id to float.
        split: str, name of the split.
        protocol: str, the scoring protocol.
    """

    overall: float
    per_answer_type: dict
    per_question_type: dict
    per_question: dict = dataclasses.field(repr=False)
    split: str
    protocol: str = PROTOCOL

    def __str__(self):
        kinds = {"overall": self.overall, **self.per_answer_type}
        return "\n".join(
            [
                f"{self.protocol}; split: {self.split}, "
                f"{len(self.per_question)} questions",
                *(f"{kind}: {score:.2f} %" for kind, score in kinds.items()),
            ]
        )


def evaluate_vqa(annotations, results, split=None):
    """Score answers as the evaluation server of VQAv2 does.

    Line breaks and tabs become spaces, and the ends are stripped. If all
    people gave exactly the same answer, the prediction must equal it.
    Otherwise all answers and the prediction are normalized. `agreement` gives
    the score.

    Args:
        annotations: path of an annotation file, or its content: a list of
            dicts with `question_id`, `question_type`, `answer_type` and
            `answers`, a list of dicts with `answer`; or a dict with this
            list as `"annotations"`.
        results: path of a result file, or its content: a list of dicts with
            `question_id` and `answer`.
        split: str, name of the split for the report; by default the
            `data_subtype` of the file, if present.

    Returns:
        `VQAReport`.

    Raises:
        ValueError: missing, unknown or repeated ids, all in one message; an
            answer that is not a string; no questions; or files with other
            content.

    Example:

    ```python
    people = [{"answer": a} for a in ["red"] * 2 + ["pink"] * 8]
    question = {"question_id": 7, "question_type": "what color"}
    annotations = [{**question, "answer_type": "other", "answers": people}]
    results = [{"question_id": 7, "answer": "Red."}]
    evaluate_vqa(annotations, results).overall  # 60.0
    ```

    Source: `vqaEval.py` of the VQA challenge (GT-Vision-Lab/VQA).
    """
    annotations = load_json(annotations)
    if isinstance(annotations, dict):
        split = split or annotations.get("data_subtype")
    keys = ("question_id", "question_type", "answer_type", "answers")
    questions = read_rows("annotations", annotations, keys)
    predictions = read_rows("results", results, ("question_id", "answer"))
    for question, answer in predictions:
        if not isinstance(answer, str):
            raise ValueError(
                "`results` must hold strings as answers. Received: "
                f"question_id={question!r}, answer={answer!r}"
            )
    check_ids(
        [question for question, *_ in questions],
        [question for question, _ in predictions],
    )

    predictions = dict(predictions)
    scores = {}
    by_answer_type = collections.defaultdict(list)
    by_question_type = collections.defaultdict(list)
    for question, question_type, answer_type, answers in questions:
        rows = read_rows("answers", answers, ("answer",))
        score = score_answer(predictions[question], [text for (text,) in rows])
        scores[question] = score
        by_answer_type[answer_type].append(score)
        by_question_type[question_type].append(score)
    return VQAReport(
        _percent(list(scores.values())),
        {kind: _percent(s) for kind, s in by_answer_type.items()},
        {kind: _percent(s) for kind, s in by_question_type.items()},
        per_question={q: _percent([score]) for q, score in scores.items()},
        split=split or "not stated",
    )


def score_answer(prediction, answers):
    """Return the official accuracy of one answer.

    Args:
        prediction: str, the answer of the model.
        answers: list of str, the answers of people.

    Returns:
        float in 0..1.

    Example:

    ```python
    score_answer("2", ["two"] * 3 + ["3"] * 7)  # 0.9
    score_answer("Two", ["two"] * 10)  # 0.0, all people agree
    ```

    Source: `vqaEval.py` of the VQA challenge.
    """
    prediction = _one_line(prediction)
    answers = [_one_line(answer) for answer in _listed(answers)]
    if len(set(answers)) > 1:
        prediction = normalize_answer(prediction)
        answers = [normalize_answer(answer) for answer in answers]
    return agreement(answers.count(prediction), len(answers))


def write_vqa_results(path, question_ids, answers, questions=None):
    """Write a result file for the evaluation server.

    Args:
        path: path of the new JSON file.
        question_ids: list of distinct ints.
        answers: list of str, one for each id.
        questions: path of a question or annotation file, or its content. If
            given, each of its ids must have an answer, and no others.

    Raises:
        ValueError: different numbers of ids and answers, repeated ids, an
            answer that is not a string, or ids other than in `questions`.

    Example:

    ```python
    write_vqa_results("results.json", [7, 8], ["red", "two"])
    ```

    Source: result format of the VQA challenge.
    """
    check_no_link(path, "`path`")
    question_ids = [int(question) for question in question_ids]
    pairs = zip(question_ids, _listed(answers), strict=True)
    rows = [{"question_id": q, "answer": answer} for q, answer in pairs]
    expected = set(question_ids)
    if questions is not None:
        questions = load_json(questions)
        name = "questions"
        if isinstance(questions, dict) and name not in questions:
            name = "annotations"
        expected = [q for (q,) in read_rows(name, questions, ("question_id",))]
    check_ids(expected, question_ids)
    with open(path, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=4)


def load_json(source):
    """Read a JSON file; return anything but a path unchanged."""
    is_path = isinstance(source, (str, os.PathLike))
    return read_json(source) if is_path else source


def read_rows(name, source, keys):
    """Return the values of some keys in each row of a VQA file, as tuples.

    Args:
        name: str, the key of the list in the file, also its name in errors.
        source: path of a JSON file, or its content: a list of dicts, or a
            dict with this list.
        keys: tuple of str, keys that every row must have.
    """
    content = load_json(source)
    try:
        rows = content[name] if isinstance(content, dict) else content
        return [tuple(row[key] for key in keys) for row in rows]
    except (KeyError, TypeError, IndexError) as error:
        raise ValueError(
            f"`{name}` must be a list of dicts with the keys {list(keys)}, or "
            f"the path of such a JSON file. Received: {source!r:.200}"
        ) from error


def check_ids(questions, answered):
    """Raise a ValueError unless every question has exactly one answer.

    Args:
        questions: list of distinct question ids.
        answered: list of question ids that have an answer.
    """
    asked, given = map(collections.Counter, (questions, answered))
    wrong = [q for q in asked | given if (asked[q], given[q]) != (1, 1)]
    if wrong or not questions:
        raise ValueError(
            f"`results` must answer each of {len(questions)} questions once. "
            f"Received: {len(wrong)} ids missing, unknown or repeated, "
            f"{wrong[:MOST_LISTED]}"
        )


def _listed(answers):
    """Return answers, which may be a generator, as a list of strings."""
    listed = [] if isinstance(answers, str) else list(answers)
    wrong = [answer for answer in listed if not isinstance(answer, str)]
    if wrong or not listed:
        raise ValueError(
            "`answers` must be a list of strings, at least one. Received: "
            f"{(wrong or [answers])[0]!r:.100}"
        )
    return listed


def _one_line(text):
    return text.replace("\n", " ").replace("\t", " ").strip()


def _percent(scores):
    return round(100 * sum(scores) / len(scores), 2)
