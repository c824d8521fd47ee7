"""Verbs: the methods of tasks, as data for every application.

Keras is not imported here, so that a command can check its arguments first.
"""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Verb:
    """A method of a task, as data for every application.

    A task lists its verbs in the class attribute `verbs`. `predict`, the
    server and the page need nothing else to offer a task.

    Args:
        name: str, unique among the verbs of all tasks, such as `"vqa"`.
        method: str, the method of the task.
        heads: tuple of str, heads that can answer. A preset needs one of them.
        does: str, its purpose, as in "cannot answer questions".
        inputs: dict from `"image"`, `"second_image"`, `"text"` or
            `"second_text"` to the parameter of the method that takes a list
            of them.
        results: dict from the name of each value that the method returns for
            a row to its type: `float`, `bool`, `str`, `list` (a vector of
            floats), a pair of names for texts with numbers, such as
            `("answer", "score")`, or a list of such a pair for several.
        optional: dict as `inputs`, of inputs that may be absent.
        top_k: bool, whether the method takes `top_k`.

    Example:

    ```python
    Verb(
        "count",
        "count",
        ("count",),
        "count things",
        inputs={"image": "images", "text": "texts"},
        results={"count": float},
    )
    ```
    """

    name: str
    method: str
    heads: tuple
    does: str
    inputs: dict
    results: dict
    optional: dict = dataclasses.field(default_factory=dict)
    top_k: bool = False

    @property
    def columns(self):
        """Names of all inputs, the optional ones last."""
        return (*self.inputs, *self.optional)

    def run(self, task, columns, top_k=1, batch_size=32):
        """Call the method for some rows.

        Args:
            task: a task with this verb.
            columns: dict from the name of an input to a list, a value for
                each row.
            top_k: int, results per row, if the verb takes it.
            batch_size: int, rows per forward pass.

        Returns:
            list of dict from the names in `results` to plain values; with
            `"known"`, a bool, if the task has a `rejection`.
        """
        parameters = self.inputs | self.optional
        values = {parameters[name]: rows for name, rows in columns.items()}
        if self.top_k:
            values["top_k"] = top_k
        found = getattr(task, self.method)(**values, batch_size=batch_size)
        if len(self.results) == 1:
            found = ((value,) for value in found)
        return [self._named(row) for row in found]

    def _named(self, row):
        named = dict(zip(self.results, map(_plain, row), strict=True))
        known = getattr(row[0], "known", None)
        return named if known is None else {**named, "known": known}


def _plain(value):
    """Convert NumPy arrays and numbers to lists and numbers of Python."""
    return value.tolist() if hasattr(value, "tolist") else value


def named(kind, value):
    """Return a result with a name for each of its parts.

    Args:
        kind: its type in `Verb.results`.
        value: the result; only texts with numbers are changed, to dicts.
    """
    if isinstance(kind, list):
        return [named(kind[0], one) for one in value]
    if isinstance(kind, tuple):
        pairs = value.items() if isinstance(value, dict) else value
        return [dict(zip(kind, pair, strict=True)) for pair in pairs]
    return value


class Answers(list):
    """list of `(answer, score)` for a picture and a question.

    Args:
        pairs: iterable of the pairs, the best first.
        known: bool, whether the model knows such pictures and questions, and
            scores the best answer high enough; None if the task has no
            `rejection`.
    """

    def __init__(self, pairs, known=None):
        super().__init__(pairs)
        self.known = known


# A note beside an answer that is not `known`.
UNKNOWN = (
    "Don't rely on this: the score is low for such a question, or the picture "
    "or the question is unlike those that I learned from."
)

_PAIR = {"image": "images", "text": "texts"}
_LABELS = {"label": str, "probabilities": ("label", "probability")}

ANSWER = Verb(
    "vqa",
    "answer",
    ("vqa",),
    "answer questions",
    {"image": "images", "text": "questions"},
    {"answers": ("answer", "score")},
    top_k=True,
)
FILL = Verb(
    "masked_lm",
    "fill_mask",
    ("mlm",),
    "fill blanks",
    _PAIR,
    {"masks": [("token", "probability")], "filled": str},
    top_k=True,
)
SCORE = Verb(
    "retrieval",
    "score",
    ("itm", "rank"),
    "match texts and pictures",
    _PAIR,
    {"score": float},
)
EMBED_IMAGES = Verb(
    "embed_images",
    "embed",
    ("itc",),
    "embed pictures",
    {"image": "images"},
    {"embedding": list},
)
EMBED_TEXTS = Verb(
    "embed_texts",
    "embed",
    ("itc",),
    "embed texts",
    {"text": "texts"},
    {"embedding": list},
)
ENTAIL = Verb(
    "entailment",
    "entail",
    ("entailment",),
    "judge sentences",
    {"image": "images", "text": "hypotheses"},
    _LABELS,
)
COMPARE = Verb(
    "nlvr2",
    "compare",
    ("nlvr2",),
    "compare pictures",
    {"image": "left", "second_image": "right", "text": "statements"},
    {"true": bool, "probability": float},
)
CLASSIFY_IMAGE = Verb(
    "image_classifier",
    "classify",
    ("image_class",),
    "classify pictures",
    {"image": "images"},
    _LABELS,
)
CLASSIFY_TEXT = Verb(
    "text_classifier",
    "classify",
    ("text_class",),
    "classify texts",
    {"text": "texts"},
    _LABELS,
    {"second_text": "second_texts"},
)
RATE = Verb(
    "text_regressor",
    "rate",
    ("text_number",),
    "grade texts",
    {"text": "texts"},
    {"grade": float},
    {"second_text": "second_texts"},
)
BUILT_IN = {
    verb.name: verb
    for verb in (
        *(ANSWER, FILL, SCORE, EMBED_IMAGES, EMBED_TEXTS, ENTAIL, COMPARE),
        *(CLASSIFY_IMAGE, CLASSIFY_TEXT, RATE),
    )
}
