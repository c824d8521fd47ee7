"""Features and soft scores for visual question answering."""

import keras
import numpy as np

from keras_bridgetower.metrics.vqa import normalize_answer
from keras_bridgetower.metrics.vqa import soft_scores
from keras_bridgetower.objectives.losses import check_scores
from keras_bridgetower.preprocessing.classification import ClassIds
from keras_bridgetower.preprocessing.classification import checked_answers
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import shape_of


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerVQAPreprocessor(BridgeTowerPreprocessor):
    """Features and soft scores for visual question answering.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        answers: list of str, the classes in the order of the logits.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as `BridgeTowerPreprocessor`.
        y: soft scores `(batch, answers)` in 0..1, a column for each of
            `answers` in their order; class ids `(batch,)` in the same order;
            answer strings `(batch,)`; or the answers of ten people
            `(batch, 10)` as they typed them. These are normalized as in the
            official evaluation ("Yes." to "yes"). Those outside the list are
            left out, and the others score by how many people agree.

    Returns:
        Features, or `(features, soft scores float32 (batch, answers))`.

    Raises:
        ValueError: labels of another form, scores outside 0..1, an id or a
            single answer outside the list.

    Example:

    ```python
    preprocessor = BridgeTowerVQAPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    image = np.zeros((64, 64, 3), "uint8")
    x, y = preprocessor({"images": image, "text": "what is it?"}, y="blue")
    ```

    Source: the VQAv2 rule of soft scores, 0, 0.3, 0.6, 0.9, 1 for 0 to 4
    and more equal answers of ten.
    """

    config_arguments = ("answers",)

    def __init__(self, tokenizer, image_converter, answers, **kwargs):
        super().__init__(tokenizer, image_converter, **kwargs)
        self.answers = checked_answers(answers)
        fix = " Clean the data or extend `answers`."
        self._class_ids = ClassIds(self.answers, fix=fix)
        ids = self._class_ids.ids
        # The id of each normalized answer. If several answers are the same
        # when normalized, it is that of the one spelled so, or of the first.
        spelled = [(normalize_answer(a), i) for a, i in ids.items()]
        self._spelled = {
            **dict(reversed(spelled)),
            **{a: i for a, i in spelled if ids.get(a) == i},
        }

    def targets(self, y, batched=True):
        batch = shape_of(y)[:1] if batched else ()
        return apply_numpy(
            lambda y: self._soft_scores(y, batched),
            [y],
            ("float32", (*batch, len(self.answers))),
        )

    def _soft_scores(self, y, batched):
        y = np.asarray(y)
        rows = y if batched else y[None]
        width = len(self.answers)
        text = rows.dtype.kind in "USO"
        if not text and rows.ndim == 2 and rows.shape[1] == width:
            check_scores("y", rows)
            return (rows if batched else rows[0]).astype("float32")
        if text and rows.ndim == 2 and rows.shape[1] == 10:
            scores = np.stack([self._agreement(row) for row in rows])
        elif rows.ndim == 1 and (text or rows.dtype.kind in "iu"):
            scores = np.eye(width, dtype="float32")[
                [self._class_ids.id_of(value) for value in rows.tolist()]
            ]
        else:
            raise ValueError(
                f"`y` must be soft scores (batch, {width}), class ids "
                "(batch,), answers (batch,) or ten answers each (batch, 10). "
                f"Received: y of shape {y.shape} and dtype {y.dtype}"
            )
        return scores if batched else scores[0]

    def _agreement(self, ten):
        scores = np.zeros(len(self.answers), "float32")
        ten = [v.decode() if isinstance(v, bytes) else v for v in ten.tolist()]
        # The evaluator takes line breaks for blanks before it looks at marks.
        for answer, score in soft_scores(
            [" ".join(a.split()) for a in ten]
        ).items():
            if answer in self._spelled:
                scores[self._spelled[answer]] = score
        return scores
