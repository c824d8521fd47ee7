"""Answers of VQAv2: normalisation, the answer list, soft scores."""

import collections
import os
import re

from keras_bridgetower.files import read_json

# Punctuation marks that are removed. Apostrophe, colon, period and signs such
# as "$", "%", "&" are not.
MARKS = ';/[]"{}()=+\\_-><@`,?!'
ARTICLES = ("a", "an", "the")
NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        "zero one two three four five six seven eight nine ten".split()
    )
} | {"none": "0"}

# Each of these words, written without apostrophes, is replaced by this form.
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
# The other entries of the official table, errors included: one is misspelt,
# two map to themselves, and those with capitals never match a lower-case word.
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

# Not \d: in the original, which is Python 2, it matches only these digits.
_COMMA_IN_NUMBER = re.compile(r"[0-9],[0-9]")
_PERIOD = re.compile(r"\.(?![0-9])")
# The original passes a flag of this value as the argument `count`.
_MOST_PERIODS = 32


def normalize_answer(text):
    """Normalise an answer as VQAv2 does before answers are compared.

    A punctuation mark next to a space is deleted; others become a space. If
    the text has a comma between two digits, all marks are deleted. Periods
    are deleted unless a digit follows. Then the text is made lower case,
    number words up to ten become digits, articles are removed, and
    contractions get their apostrophe. The result may be empty. The official
    evaluation strips the text before this, as `evaluate_vqa` does. The answer
    list is made without stripping.

    Args:
        text: str.

    Returns:
        str.

    Raises:
        ValueError: `text` is not a string.

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
    """Official accuracy of an answer that some people gave.

    Each person is left out in turn. The answer scores a third for each of the
    other people who gave it, at most 1. The result is the mean.

    Args:
        matches: int, number of people who gave the answer.
        people: int, number of people who were asked.

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
    # Summed in thirds, so that the result is exact: 9 / 30 is the float 0.3.
    one_of_them, another = min(3, matches - 1), min(3, matches)
    thirds = matches * one_of_them + (people - matches) * another
    return thirds / (3 * people)


def soft_scores(answers):
    """Soft scores of the answers to one question, as training targets.

    The answers are normalised before they are counted, as in the tables of
    BridgeTower with `_fix` in their names. ViLT and METER count them as they
    were typed, and so lose answers that are spelt differently in the answer
    list.

    Args:
        answers: list of str, the answer of each person.

    Returns:
        dict from normalised answer to float score in 0..1, in the order of
        first occurrence.

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

    These are the normalised `multiple_choice_answer`s that occur often
    enough. They are ordered by first occurrence, so the order of the files
    matters: training before validation gives the published 3,129 answers. One
    of them may be the empty string, the normal form of a single article.

    Args:
        *annotations: paths of annotation files, or their content, as in
            `evaluate_vqa`.
        min_count: int, how often an answer must occur.

    Returns:
        list of str.

    Raises:
        ValueError: a file that holds no annotations.

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
    """The content of a JSON file; anything but a path is returned as it is."""
    if not _is_path(source):
        return source
    try:
        return read_json(source)
    except ValueError as error:
        raise ValueError(
            f"{os.fsdecode(source)} must be JSON: {error}. Fetch it again."
        ) from error


def read_rows(name, source, keys):
    """The values of some keys in each row (entry) of a VQA file.

    Args:
        name: str, the key of the list in the file, also its name in errors.
        source: path of a JSON file, or its content: a list of dicts, or a
            dict with this list.
        keys: tuple of str, keys that every row must have.

    Returns:
        list of tuples of values, one for each row.

    Raises:
        ValueError: the file has another content.
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
