"""The official evaluation of VQAv2, and files of results for its server."""

import collections
import dataclasses
import json

from keras_bridgetower.files import check_no_link
from keras_bridgetower.metrics.vqa_answers import agreement
from keras_bridgetower.metrics.vqa_answers import load_json
from keras_bridgetower.metrics.vqa_answers import normalize_answer
from keras_bridgetower.metrics.vqa_answers import read_rows

PROTOCOL = "official VQAv2 accuracy, leave one of the people out"
# How many ids of each kind an error lists. A split may have 447,793.
MOST_LISTED = 20


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
        protocol: str, how answers are scored.
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
    people gave exactly the same answer, the prediction must be equal to it.
    Otherwise all answers and the prediction are normalised. The score is that
    of `agreement`.

    Args:
        annotations: path of an annotation file, or its content: a list of
            dicts with `question_id`, `question_type`, `answer_type` and
            `answers`, a list of dicts with `answer`; or a dict with this
            list as `"annotations"`.
        results: path of a result file, or its content: a list of dicts with
            `question_id` and `answer`.
        split: str, name of the split for the report; by default the
            `data_subtype` of the file, if it has one.

    Returns:
        `VQAReport`.

    Raises:
        ValueError: ids that are missing, unknown or repeated, all in one
            message; an answer that is not a string; no questions; or files
            with another content.

    Example:

    ```python
    people = [{"answer": a} for a in ["red"] * 2 + ["pink"] * 8]
    question = {"question_id": 7, "question_type": "what color"}
    asked = [{**question, "answer_type": "other", "answers": people}]
    report = evaluate_vqa(asked, [{"question_id": 7, "answer": "Red."}])
    report.overall  # 60.0
    ```

    Source: `vqaEval.py` of the VQA challenge (GT-Vision-Lab/VQA).
    """
    loaded = load_json(annotations)
    if split is None and isinstance(loaded, dict):
        split = loaded.get("data_subtype")
    keys = ("question_id", "question_type", "answer_type", "answers")
    asked = read_rows("annotations", loaded, keys)
    given = read_rows("results", results, ("question_id", "answer"))
    for question, answer in given:
        _check_answer("results", question, answer)
    check_ids(
        [question for question, *_ in asked],
        [question for question, _ in given],
    )

    predicted = dict(given)
    scores = {}
    groups = collections.defaultdict(list), collections.defaultdict(list)
    for question, question_type, answer_type, answers in asked:
        people = [
            text for (text,) in read_rows("answers", answers, ("answer",))
        ]
        for text in people:
            _check_answer("annotations", question, text)
        scores[question] = score_answer(predicted[question], people)
        groups[0][answer_type].append(scores[question])
        groups[1][question_type].append(scores[question])
    return VQAReport(
        _percent(scores.values()),
        *({kind: _percent(of) for kind, of in by.items()} for by in groups),
        per_question={q: _percent([score]) for q, score in scores.items()},
        split=split or "not stated",
    )


def score_answer(prediction, answers):
    """Official accuracy of one answer.

    Args:
        prediction: str, the answer of the model.
        answers: list of str, the answers of people.

    Returns:
        float in 0..1.

    Raises:
        ValueError: `answers` is empty.

    Example:

    ```python
    score_answer("2", ["two"] * 3 + ["3"] * 7)  # 0.9
    score_answer("Two", ["two"] * 10)  # 0.0, all people agree
    ```

    Source: `vqaEval.py` of the VQA challenge.
    """
    prediction = _one_line(prediction)
    answers = [_one_line(answer) for answer in answers]
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
            given, there must be an answer for each of its ids and no others.

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
    if isinstance(answers, str) or len(question_ids) != len(answers):
        raise ValueError(
            "`answers` must be a list with one string for each question id. "
            f"Received: {len(question_ids)} ids, answers={answers!r:.200}"
        )
    for question, answer in zip(question_ids, answers, strict=True):
        _check_answer("answers", question, answer)
    expected = dict.fromkeys(question_ids)
    if questions is not None:
        loaded = load_json(questions)
        name = "questions"
        if isinstance(loaded, dict) and name not in loaded:
            name = "annotations"
        expected = [q for (q,) in read_rows(name, loaded, ("question_id",))]
    check_ids(list(expected), question_ids)
    rows = [
        {"question_id": question, "answer": str(answer)}
        for question, answer in zip(question_ids, answers, strict=True)
    ]
    with open(path, "w", encoding="utf-8") as file:
        json.dump(rows, file, indent=4)


def check_ids(asked, answered):
    """Refuse answers unless there is exactly one for every question.

    Args:
        asked: list of distinct question ids.
        answered: list of question ids that have an answer.

    Raises:
        ValueError: ids are missing, unknown or repeated; it lists them.
    """
    counts = collections.Counter(answered)
    questions = set(asked)
    wrong = {
        "without an answer": [
            q for q in dict.fromkeys(asked) if q not in counts
        ],
        "answered but not asked": [q for q in counts if q not in questions],
        "answered more than once": [q for q, n in counts.items() if n > 1],
        "annotated more than once": [
            q for q, n in collections.Counter(asked).items() if n > 1
        ],
    }
    parts = [f"{kind}: {_listed(ids)}" for kind, ids in wrong.items() if ids]
    if parts or not asked:
        raise ValueError(
            "`results` must answer every question id of the split exactly "
            f"once, and there must be questions. Received: {len(asked)} "
            f"questions, {len(answered)} answers; {'; '.join(parts)}"
        )


def _listed(ids):
    more = len(ids) - MOST_LISTED
    text = ", ".join(map(repr, ids[:MOST_LISTED]))
    return f"{text} and {more} more" if more > 0 else text


def _one_line(text):
    return text.replace("\n", " ").replace("\t", " ").strip()


def _check_answer(name, question, answer):
    if not isinstance(answer, str):
        raise ValueError(
            f"`{name}` must hold strings as answers. Received: "
            f"question_id={question!r}, answer={answer!r}"
        )


def _percent(scores):
    scores = list(scores)
    return round(100 * sum(scores) / len(scores), 2)
