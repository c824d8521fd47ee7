"""The verb that each task runs on a table, and the columns that it needs."""

import dataclasses
from collections.abc import Callable

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.preprocessing.texts import checked_texts
from keras_bridgetower.tasks.contrastive import BridgeTowerContrastive
from keras_bridgetower.tasks.entailment import BridgeTowerEntailment
from keras_bridgetower.tasks.masked_lm import BridgeTowerMaskedLM
from keras_bridgetower.tasks.nlvr2 import BridgeTowerNLVR2
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval
from keras_bridgetower.tasks.unimodal import BridgeTowerImageClassifier
from keras_bridgetower.tasks.unimodal import BridgeTowerTextClassifier
from keras_bridgetower.tasks.unimodal import BridgeTowerTextRegressor
from keras_bridgetower.tasks.vqa import BridgeTowerVQA


def _labelled(found):
    return [
        {"label": label, "probabilities": probabilities}
        for label, probabilities in found
    ]


def _answers(task, rows, top_k, batch_size):
    found = task.answer(rows["image"], rows["text"], top_k, batch_size)
    return [{"answers": answers} for answers in found]


def _check_answers(task, top_k):
    check_at_most("top_k", top_k, len(task.answers), "answers")


def _check_tokens(task, top_k):
    tokenizer = task.needed_preprocessor().tokenizer
    size = tokenizer.vocabulary_size()
    check_at_most("top_k", top_k, size, "tokens of the vocabulary")


def _check_texts(task, texts):
    checked_texts(texts)


def _check_blanks(task, texts):
    if texts:
        task.needed_preprocessor().text_with_blanks(texts)


def _fillings(task, rows, top_k, batch_size):
    found = task.fill_mask(rows["image"], rows["text"], top_k, batch_size)
    return [{"masks": masks, "filled": text} for masks, text in found]


def _scores(task, rows, top_k, batch_size):
    scores = task.score(rows["image"], rows["text"], batch_size)
    return [{"score": float(score)} for score in scores]


def _image_vectors(task, rows, top_k, batch_size):
    vectors = task.embed(images=rows["image"], batch_size=batch_size)
    return [{"embedding": vector.tolist()} for vector in vectors]


def _text_vectors(task, rows, top_k, batch_size):
    vectors = task.embed(texts=rows["text"], batch_size=batch_size)
    return [{"embedding": vector.tolist()} for vector in vectors]


def _relations(task, rows, top_k, batch_size):
    return _labelled(task.entail(rows["image"], rows["text"], batch_size))


def _truths(task, rows, top_k, batch_size):
    found = task.compare(
        rows["image"], rows["second_image"], rows["text"], batch_size
    )
    return [{"true": true, "probability": p} for true, p in found]


def _classes(task, rows, top_k, batch_size):
    return _labelled(task.classify(rows["image"], batch_size))


def _text_classes(task, rows, top_k, batch_size):
    return _labelled(
        task.classify(rows["text"], rows.get("second_text"), batch_size)
    )


def _grades(task, rows, top_k, batch_size):
    grades = task.rate(rows["text"], rows.get("second_text"), batch_size)
    return [{"grade": float(grade)} for grade in grades]


@dataclasses.dataclass(frozen=True)
class Verb:
    """What a task does with rows.

    Args:
        task: class of the task.
        columns: tuple of str, what it reads.
        function: callable of the task, a dict of columns, `top_k` and
            `batch_size` that returns a dict for each row.
        results: tuple of str, the names of what it returns.
        optional: tuple of str, columns that it reads where they are.
        check: callable of the task and `top_k` that refuses more results than
            there are, or None where each row has one.
        check_texts: callable of the task and a list of texts that refuses
            those that the task does not take.
    """

    task: type
    columns: tuple
    function: Callable
    results: tuple
    optional: tuple = ()
    check: Callable | None = None
    check_texts: Callable = _check_texts


PAIR = ("image", "text")
TEXT, SECOND = ("text",), ("second_text",)
LABEL = ("label", "probabilities")
EMBEDDING = ("embedding",)
VERBS = {
    "vqa": Verb(
        BridgeTowerVQA, PAIR, _answers, ("answers",), check=_check_answers
    ),
    "masked_lm": Verb(
        BridgeTowerMaskedLM,
        PAIR,
        _fillings,
        ("masks", "filled"),
        check=_check_tokens,
        check_texts=_check_blanks,
    ),
    "retrieval": Verb(BridgeTowerRetrieval, PAIR, _scores, ("score",)),
    "embed_images": Verb(
        BridgeTowerContrastive, ("image",), _image_vectors, EMBEDDING
    ),
    "embed_texts": Verb(BridgeTowerContrastive, TEXT, _text_vectors, EMBEDDING),
    "entailment": Verb(BridgeTowerEntailment, PAIR, _relations, LABEL),
    "nlvr2": Verb(
        BridgeTowerNLVR2,
        ("image", "second_image", "text"),
        _truths,
        ("true", "probability"),
    ),
    "image_classifier": Verb(
        BridgeTowerImageClassifier, ("image",), _classes, LABEL
    ),
    "text_classifier": Verb(
        BridgeTowerTextClassifier, TEXT, _text_classes, LABEL, SECOND
    ),
    "text_regressor": Verb(
        BridgeTowerTextRegressor, TEXT, _grades, ("grade",), SECOND
    ),
}


def open_task(name, preset):
    """The task of a preset that has all weights that the verb needs.

    Args:
        name: str, key of `VERBS`.
        preset: as the `from_preset` of a task takes it.

    Raises:
        ValueError: no such preset, or one without the head. Else each row
            would say so.
    """
    task = VERBS[name].task.from_preset(preset)
    task.new_heads.check(name, task.answering_heads)
    return task


class UnfitSetting(ValueError):
    """A setting with which each row would fail."""


def check_settings(task, name, texts=(), top_k=1):
    """Refuse settings with which each row would fail.

    Args:
        task: a task.
        name: str, key of `VERBS`.
        texts: list of str, those that each row is taken with.
        top_k: int, answers or tokens of a row.

    Raises:
        UnfitSetting: an empty text or another that the task does not take,
            such as one without a blank where it fills blanks; or more answers
            than there are.
    """
    try:
        verb = VERBS[name]
        verb.check_texts(task, list(texts))
        if verb.check is not None:
            verb.check(task, top_k)
    except ValueError as error:
        raise UnfitSetting(str(error)) from error
