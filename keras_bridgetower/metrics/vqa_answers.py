"""Answers of VQAv2: one spelling for each, the answer list, soft scores."""

import collections
import json
import os
import re

# Every mark is judged on its own; apostrophe, colon, period and signs such
# as "$", "%", "&" are none of them.
MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()
    )
} | {"none": "0"}

# Written without its apostrophes, each of these is read as it stands here.
_REGULAR = """
    ain't aren't can't could've couldn't didn't doesn't don't hadn't hasn't
    haven't he'd he's how'd how'll how's I'm I've isn't it'd it'll ma'am
    mightn't might've mustn't must've needn't not've o'clock oughtn't shan't
    should've shouldn't somebody'll somebody's someone'd someone'll someone's
    something'd something'll that's there'd there're there's they'd they'll
    they're they've 'twas wasn't we've weren't what'll what're what's what've
    when's where'd where's where've who'd who'll who's who've why'll why're
    why's won't would've wouldn't y'all you'd you'll you're you've
"""
# The rest, odd ones included: one misspells its word, two map to themselves,
# and those with capitals never match a word in lower case.
_IRREGULAR = """
    couldn't've: couldn'tve couldnt've | hadn't've: hadnt've hadn'tve |
    he'd've: hed've he'dve | I'd've: Id've I'dve | it'd've: itd've it'dve |
    let's: let's | mightn't've: mightnt've mightn'tve |
    'ow's'at: ow's'at 'ows'at 'ow'sat | she'd've: shed've she'dve |
    she's: she's | shouldn't've: shouldnt've shouldn'tve |
    somebodyd: somebody'd | somebody'd've: somebodyd've somebody'dve |
    someone'd've: someoned've someone'dve |
    something'd've: somethingd've something'dve |
    there'd've: thered've there'dve | they'd've: theyd've they'dve |
    we'd've: wed've we'dve | who'd've: whod've who'dve |
    wouldn't've: wouldnt've wouldn'tve | y'all'll: yall'll y'allll |
    y'all'd've: yall'd've y'alld've y'all'dve | you'd've: youd've you'dve
"""
CONTRACTIONS = {word.replace("'", ""): word for word in _REGULAR.split()} | {
    key: value.strip()
    for value, keys in (row.split(":") for row in _IRREGULAR.split("|"))
    for key in keys.split()
}

# The original is Python 2, where \d is these ten digits only.
_COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
_PERIOD = re.compile(r"\.(?![0-9])")
# The original passes a flag of this value where the count belongs.
_MOST_PERIODS = 32


def normalize_answer(text):
    """Bring an answer to the spelling in which VQAv2 compares answers.

    A punctuation mark next to a space is deleted, elsewhere it becomes a
    space; in a text with a comma between two digits every mark is deleted.
    Periods go unless a digit follows. Then lower case, number words to ten
    as digits, no articles, contractions with their apostrophe. The result
    may be empty. The official evaluator also strips the text first, which
    `evaluate_vqa` does; the answer list is made without.

    Args:
        text: str.

    Returns:
        str.

    Raises:
        ValueError: not a string.

    Example:

    ```python
    normalize_answer("The T-shirt.")  # "t shirt"
    normalize_answer("dont know")  # "don't know"
    ```

    Source: `vqaEval.py` of the VQA challenge; BridgeTower's
    `normalize_word`.
    """
    if not isinstance(text, str):
        raise ValueError(f"`text` must be a string. Received: text={text!r}")
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
    """Accuracy of an answer that some of the people gave.

    Each person in turn is left out; three equal answers among the others
    are a full score, and the mean over the people counts.

    Args:
        matches: int, how many people gave the answer.
        people: int, how many were asked.

    Returns:
        float in 0..1; of ten people 0, 0.3, 0.6, 0.9, 1, 1, ...

    Example:

    ```python
    agreement(2)  # 0.6
    ```

    Source: `vqaEval.py` of the VQA challenge.
    """
    if not 0 <= matches <= people or not people:
        raise ValueError(
            "`matches` must be from 0 to `people`, which is at least 1. "
            f"Received: matches={matches}, people={people}"
        )
    # In thirds, so that 9 / 30 is the float 0.3.
    one_of_them, another = min(3, matches - 1), min(3, matches)
    thirds = matches * one_of_them + (people - matches) * another
    return thirds / (3 * people)


def soft_scores(answers):
    """Training targets of one question.

    The answers are normalised before they are counted, as in the tables that
    BridgeTower calls `_fix`. ViLT and METER count them as typed and so lose
    those that the answer list spells differently.

    Args:
        answers: list of str, one for each person.

    Returns:
        dict from normalised answer to float score in 0..1, in order of first
        occurrence.

    Raises:
        ValueError: no answers, or not a list of strings.

    Example:

    ```python
    soft_scores(["Red."] * 2 + ["red"] + ["pink"] * 7)
    # {"red": 0.9, "pink": 1.0}
    ```

    Source: VQAv2, by the counting of BridgeTower's `_fix` tables.
    """
    if isinstance(answers, str) or not len(answers):
        raise ValueError(
            "`answers` must be a list of strings, at least one. "
            f"Received: answers={answers!r}"
        )
    counts = collections.Counter(map(normalize_answer, answers))
    people = len(answers)
    return {text: agreement(n, people) for text, n in counts.items()}


def answer_list(*annotations, min_count=9):
    """The classes of a VQA model, in the order of their ids.

    The `multiple_choice_answer` of every annotation, normalised, if it
    occurs often enough. Ids follow the first occurrence, so the order of the
    files matters: training before validation gives the published 3,129. The
    empty string may be among them, as an article alone normalises to it.

    Args:
        *annotations: paths of annotation files, or what they hold, as
            `evaluate_vqa`.
        min_count: int, occurrences that an answer needs.

    Returns:
        list of str.

    Raises:
        ValueError: not annotations.

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


def load_json(source):
    """What a JSON file holds; anything but a path is passed through."""
    if not _is_path(source):
        return source
    with open(source, encoding="utf-8") as file:
        return json.load(file)


def read_rows(name, source, keys):
    """The values of some keys in each row of a VQA file.

    Args:
        name: str, the key of the list in the file, and what errors call it.
        source: path of a JSON file, or what it holds: a list of dicts, or a
            dict with that list.
        keys: names that every row must have.

    Returns:
        list of tuples, one for each row.

    Raises:
        ValueError: the file holds something else.
    """
    shown = repr(source) if _is_path(source) else type(source).__name__
    source = load_json(source)
    rows = source.get(name) if isinstance(source, dict) else source
    expected = f"`{name}` must be a list of dicts with the keys {list(keys)}"
    if not isinstance(rows, (list, tuple)):
        raise ValueError(
            f"{expected}, or a dict that holds it as {name!r}, or the path of "
            f"such a JSON file. Received: {name}={shown}"
        )
    for i, row in enumerate(rows):
        if not isinstance(row, dict) or not set(keys) <= set(row):
            raise ValueError(
                f"{expected}. Received: {name}[{i}]={row!r:.200} of {shown}"
            )
    return [tuple(row[key] for key in keys) for row in rows]


def _is_path(source):
    return isinstance(source, (str, os.PathLike))
