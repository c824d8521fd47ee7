"""Visual question answering, as classification over a list of answers."""

import keras
import numpy as np

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.metrics.keras_metrics import VQAScore
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.preprocessing.classification import checked_answers
from keras_bridgetower.preprocessing.verb_inputs import check_same_or_single
from keras_bridgetower.preprocessing.verb_inputs import one_or_all
from keras_bridgetower.preprocessing.vqa import BridgeTowerVQAPreprocessor
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.inference import joined
from keras_bridgetower.tasks.task import BridgeTowerTask


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerVQA(BridgeTowerTask):
    """Answers questions about pictures by choosing from a list of answers.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerVQAPreprocessor`, or None.
        answers: list of str, the classes in the order of the logits; by
            default those of the preprocessor.
        head_hidden_scale: number, width of the head's hidden layer, as a
            multiple of the pooled width.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's.

    Returns:
        float32 tensor `(batch, answers)`: logits. In `fit` and `evaluate`
        `x` is a dict of `"images"` and `"text"`, and `y` soft scores, class
        ids or answer strings (see `BridgeTowerVQAPreprocessor`).

    Raises:
        ValueError: no answers, or answers that differ from the
            preprocessor's.

    Example:

    ```python
    vqa = BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    image = np.full((64, 64, 3), 255, "uint8")
    image[20:40, 20:40] = (255, 0, 0)
    vqa.answer(image, "what color is the shape?", top_k=2)
    ```

    Source: BridgeTower (AAAI 2023), VQAv2 fine-tuning.
    """

    preprocessor_cls = BridgeTowerVQAPreprocessor
    label_arguments = ("answers",)
    task_name = "vqa"
    verbs = (verbs.ANSWER,)
    recipe_arguments = {"answers": "labels", "head_hidden_scale": "head_scale"}
    config_arguments = ("answers", "head_hidden_scale")

    def __init__(
        self,
        backbone,
        preprocessor=None,
        answers=None,
        head_hidden_scale=2,
        **kwargs,
    ):
        known = getattr(preprocessor, "answers", None)
        if answers is None and known is None:
            raise ValueError(
                "`answers` must list the classes, in `BridgeTowerVQA` or in "
                "its preprocessor. Received: answers=None, "
                f"preprocessor={preprocessor!r}"
            )
        answers = checked_answers(known if answers is None else answers)
        if known is not None and known != answers:
            raise ValueError(
                "`answers` must be those of the preprocessor, in their order. "
                f"Received: {len(answers)} answers, and {len(known)} in the "
                "preprocessor"
            )
        head = {
            "answers": answers,
            "num_classes": len(answers),
            "head_hidden_scale": head_hidden_scale,
        }
        super().__init__(backbone, preprocessor, {"vqa": head}, **kwargs)
        self.answers = answers
        self.head_hidden_scale = head_hidden_scale

    def outputs_of(self, inputs):
        pooled = self.backbone.fuse(inputs, outputs=("pooled",))["pooled"]
        return self.heads["vqa"](pooled)

    @property
    def class_names(self):
        return self.answers

    def label_words(self):
        return "soft scores (batch, answers), class ids or answers (batch,)"

    @classmethod
    def head_arguments(cls, heads):
        saved = heads.get("vqa", {})
        names = ("answers", "head_hidden_scale")
        return {k: saved[k] for k in names if saved.get(k) is not None}

    def check_request(self, texts=(), top_k=1):
        super().check_request(texts)
        check_at_most("top_k", top_k, len(self.answers), "answers")

    def answer(self, images, questions, top_k=1, batch_size=32):
        """Answer questions about pictures.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`).
            questions: one question or a list, as many as pictures. One
                picture that is not in a list is asked every question, one
                question that is not in a list is asked of every picture.
            top_k: int, number of answers for each question.
            batch_size: int, questions per forward pass.

        Returns:
            list of `(answer, score)` with the best first, the score a
            sigmoid in 0..1; a list of such lists if the inputs were lists.

        Raises:
            ValueError: no preprocessor, unequal counts, unreadable pictures,
                empty questions, or `top_k` out of range.

        Example:

        ```python
        vqa.answer("photo.png", "what color is the shape?", top_k=3)
        ```
        """
        check_at_most("top_k", top_k, len(self.answers), "answers")
        sources = self.sources(images, questions, "questions")
        check_same_or_single(sources)
        logits = joined(
            self.batches("answer", sources, batch_size, buckets=self.buckets)
        )
        scores = 1 / (1 + np.exp(-logits.astype("float64")))
        best = np.argsort(-logits, axis=-1, kind="stable")[:, :top_k]
        results = [
            [(self.answers[i], float(row[i])) for i in order]
            for row, order in zip(scores, best, strict=True)
        ]
        return one_or_all(results, sources)

    def default_loss(self):
        return VQALoss()

    def default_metrics(self):
        return [VQAScore()]
