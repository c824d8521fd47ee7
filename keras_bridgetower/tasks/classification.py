"""Tasks that choose among classes: VQA, entailment, NLVR2, pictures, texts."""

import keras
from keras import ops

from keras_bridgetower import checks
from keras_bridgetower.metrics.calibration import softmax
from keras_bridgetower.metrics.keras_metrics import VQAScore
from keras_bridgetower.models.exporting.runtime import best_answers
from keras_bridgetower.models.fusion import IMAGE_ROW
from keras_bridgetower.models.fusion import SECOND_IMAGE_ROW
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.preprocessing import classification as preprocessing
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.preprocessing.verb_inputs import TextPairs
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.contrastive import pooled
from keras_bridgetower.tasks.task import BridgeTowerTask

# The type row of each picture, left first.
ROWS = (IMAGE_ROW, SECOND_IMAGE_ROW)


def class_loss():
    """Return the softmax cross-entropy of class ids, in float32."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype="float32"
    )


def class_accuracy():
    """Return the accuracy of the class with the highest logit, in float32."""
    return keras.metrics.SparseCategoricalAccuracy(
        name="accuracy", dtype="float32"
    )


def chosen_labels(name, labels, preprocessor):
    """Return the names of a task's classes, by default its preprocessor's.

    Args:
        name: str, what task and preprocessor call them.
        labels: list of str, or None.
        preprocessor: a preprocessor, or None.

    Raises:
        ValueError: no names, or others than the preprocessor's.
    """
    known = getattr(preprocessor, name, None)
    if labels is not None:
        labels = preprocessing.checked_answers(labels, name)
    labels = known if labels is None else labels
    if not labels or known not in (None, labels):
        raise ValueError(
            f"`{name}` must be given, in the task or its preprocessor, and be "
            f"the same in both. Received: {name}={labels!r:.200}, and "
            f"{known!r:.200} in the preprocessor"
        )
    return labels


class ClassificationTask(BridgeTowerTask):
    """Abstract: softmax cross-entropy of class ids, and their accuracy."""

    def default_loss(self):
        return class_loss()

    def default_metrics(self):
        return [class_accuracy()]

    def probabilities(self, name, sources, batch_size):
        """Compute the probabilities of the classes for a verb.

        Args:
            name: str, the verb.
            sources: list of `Features` and `Pictures`.
            batch_size: int, samples per forward pass.

        Returns:
            float64 array `(batch, classes)`.
        """
        return softmax(self._run(name, sources, batch_size).astype("float64"))

    def _classified(self, verb, sources, batch_size):
        """Return the best class and all probabilities by name of each row."""
        names = self.class_names
        found = [
            (names[row.argmax()], dict(zip(names, row.tolist(), strict=True)))
            for row in self.probabilities(verb, sources, batch_size)
        ]
        return verb_inputs.one_or_all(found, sources)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerEntailment(ClassificationTask):
    """Decides whether a picture entails a hypothesis or contradicts it.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerEntailmentPreprocessor`, or None.
        head_hidden_scale: number, width of the head's hidden layer over that
            of the pooled representation.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's.

    Returns:
        float32 tensor `(batch, 3)`: logits of contradiction, neutral and
        entailment. In `fit` and `evaluate` `x` is a dict of `"images"` and
        `"text"`, and `y` ids or names (see
        `BridgeTowerEntailmentPreprocessor`).

    Raises:
        ValueError: a preprocessor that does not fit the backbone.

    Example:

    ```python
    model = BridgeTowerEntailment.from_preset(
        "bridgetower_tiny_easy_entailment")
    image = np.full((64, 64, 3), 255, "uint8")
    label, probabilities = model.entail(image, "the shape is red.")
    ```

    Source: BridgeTower (AAAI 2023), SNLI-VE fine-tuning.
    """

    preprocessor_cls = preprocessing.BridgeTowerEntailmentPreprocessor
    task_name = head_name = "entailment"
    class_names = list(preprocessing.ENTAILMENT_LABELS)
    verbs = (verbs.ENTAIL,)
    recipe_arguments = {"head_hidden_scale": "head_scale"}
    config_arguments = ("head_hidden_scale",)

    def __init__(
        self, backbone, preprocessor=None, head_hidden_scale=2, **kwargs
    ):
        head = dict(num_classes=3, head_hidden_scale=head_hidden_scale)
        super().__init__(backbone, preprocessor, {"entailment": head}, **kwargs)

    def entail(self, images, hypotheses, batch_size=32):
        """Judge hypotheses by pictures.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`).
            hypotheses: one text or a list, as many as pictures. One picture
                or one text that is not in a list is used with every other.
            batch_size: int, hypotheses per forward pass.

        Returns:
            `(label, probabilities)`: the best of "contradiction", "neutral"
            and "entailment", and a dict from each of them to its probability;
            a list of such pairs where lists came in.

        Raises:
            ValueError: no preprocessor, unequal counts, unreadable pictures
                or empty texts.

        Example:

        ```python
        model.entail("photo.png", "the shape is a circle.")
        ```
        """
        sources = self.sources(images, hypotheses, "hypotheses")
        return self._classified("entail", sources, batch_size)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerNLVR2(ClassificationTask):
    """Decides whether a statement about two pictures is true.

    The text is joined with each picture, the second one marked by a type
    embedding of its own; the head reads both results. The text tower runs
    once.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerNLVR2Preprocessor`, or None.
        head_hidden_scale: number, width of the head's hidden layer over that
            of one pooled representation.
        dropout: float, dropout of what the head reads.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's, but `"images"` float
            `(batch, 2, S, S, 3)`.

    Returns:
        float32 tensor `(batch, 2)`: logits of false and true. In `fit` and
        `evaluate` `x` is a dict of `"images"`, pairs of pictures, and
        `"text"`, and `y` are truth values (see
        `BridgeTowerNLVR2Preprocessor`).

    Raises:
        ValueError: a preprocessor that does not fit the backbone.

    Example:

    ```python
    model = BridgeTowerNLVR2.from_preset("bridgetower_tiny_easy_nlvr2")
    image = np.full((64, 64, 3), 255, "uint8")
    true, probability = model.compare(image, image, "both shapes are red.")
    ```

    Source: BridgeTower (AAAI 2023), NLVR2 fine-tuning of the base model.
    """

    preprocessor_cls = preprocessing.BridgeTowerNLVR2Preprocessor
    task_name = head_name = "nlvr2"
    pictures = (len(ROWS),)
    verbs = (verbs.COMPARE,)
    config_arguments = ("head_hidden_scale", "dropout")
    recipe_arguments = {
        "head_hidden_scale": "head_scale",
        "dropout": "head_dropout",
    }

    def __init__(
        self,
        backbone,
        preprocessor=None,
        head_hidden_scale=1.5,
        dropout=0.1,
        **kwargs,
    ):
        head = dict(
            num_classes=2, head_hidden_scale=head_hidden_scale, dropout=dropout
        )
        super().__init__(backbone, preprocessor, {"nlvr2": head}, **kwargs)

    def outputs_of(self, inputs):
        backbone, images = self.backbone, inputs["images"]
        text = backbone.text_tower(inputs)
        images = ops.reshape(images, (-1, *images.shape[2:]))
        states = backbone.image_tower(images)
        states = [ops.reshape(x, (-1, 2, *x.shape[1:])) for x in states]
        both = []
        for place, row in enumerate(ROWS):
            image = [x[:, place] for x in states]
            both.append(pooled(backbone, text, image, inputs, image_row=row))
        return self.heads["nlvr2"](ops.concatenate(both, axis=-1))

    def compare(self, left, right, statements, batch_size=32):
        """Say whether statements about two pictures are true.

        Args:
            left: one picture or a list: paths, encoded bytes, PIL images or
                arrays (see `load_image`).
            right: likewise.
            statements: one text or a list, as many as pairs of pictures. What
                is not in a list is used with every other.
            batch_size: int, statements per forward pass.

        Returns:
            `(true, probability)`: a bool, and how probable this answer is; a
            list of such pairs where lists came in.

        Raises:
            ValueError: no preprocessor, unequal counts, unreadable pictures
                or empty texts.

        Example:

        ```python
        model.compare("photo.png", "photo.png", "both shapes are red.")
        ```
        """
        preprocessor = self.needed_preprocessor()
        verb_inputs.check_order(left, statements, "statements")
        texts = verb_inputs.Texts(preprocessor, statements, "statements")
        sources = [
            verb_inputs.PicturePairs(preprocessor, left, right, texts),
            texts,
        ]
        rows = self.probabilities("compare", sources, batch_size)
        results = [(bool(row.argmax()), float(row.max())) for row in rows]
        return verb_inputs.one_or_all(results, sources)


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
        rejection: dict, the rule by which `answer` says that it does not know
            a picture and a question, or None: `"kind"`, which is `"energy"`,
            and `"threshold"`, a number. Below it, minus the energy of the
            logits means unknown. It may be set later, and a new head has
            none. `divide_logits` notes a `"temperature"` in it.
            `"questions"` may be a table: `"words"`, a string of words, of
            which a `"share"` of a question must be; `"skip"`, phrases that
            are passed over; and `"sorts"`, a list of dicts. A question is of
            the first sort where each list in `"has"` has a phrase that is in
            it (`"^ is"` at its start). `"answers"` are the only ones that fit
            it or, without `"only"`, the ones that do not; best answers that
            score below `"floor"` are unknown.
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

    preprocessor_cls = preprocessing.BridgeTowerVQAPreprocessor
    label_arguments = ("answers",)
    task_name = head_name = "vqa"
    verbs = (verbs.ANSWER,)
    recipe_arguments = {"answers": "labels", "head_hidden_scale": "head_scale"}
    config_arguments = ("answers", "head_hidden_scale")

    def __init__(
        self,
        backbone,
        preprocessor=None,
        answers=None,
        head_hidden_scale=2,
        rejection=None,
        **kwargs,
    ):
        answers = chosen_labels("answers", answers, preprocessor)
        self.rejection = rejection
        head = {
            "answers": answers,
            "num_classes": len(answers),
            "head_hidden_scale": head_hidden_scale,
        }
        super().__init__(backbone, preprocessor, {"vqa": head}, **kwargs)
        self.class_names = answers

    @property
    def rejection(self):
        """dict: the rule for what is unknown, or None."""
        return self._rejection

    @rejection.setter
    def rejection(self, rejection):
        # Keras would put the dict into one of its own.
        object.__setattr__(self, "_rejection", checked_rejection(rejection))

    def start_heads(self, new):
        if new:
            # The threshold is one for the logits of another head.
            self.rejection = None
        return super().start_heads(new)

    def divide_logits(self, head, temperature):
        super().divide_logits(head, temperature)
        if self.rejection:
            before = self.rejection.get("temperature", 1.0)
            self.rejection |= {"temperature": before * temperature}

    def get_config(self):
        rule = {"rejection": self.rejection} if self.rejection else {}
        return super().get_config() | rule

    def check_request(self, texts=(), top_k=1):
        super().check_request(texts)
        checks.check_at_most("top_k", top_k, len(self.answers), "answers")

    def answer(self, images, questions, top_k=1, batch_size=32):
        """Answer questions about pictures.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`).
            questions: one question or a list, as many as pictures. One
                picture that is not in a list is asked every question, one
                question that is not in a list is asked of every picture.
            top_k: int, number of answers for each question. There are fewer
                if the `rejection` allows fewer, such as yes and no.
            batch_size: int, questions per forward pass.

        Returns:
            list of `(answer, score)` with the best first, the score a
            sigmoid in 0..1; a list of such lists if the inputs were lists.
            Each has an attribute `known`: whether the task knows such
            pictures and questions and the best answer is likely right, or
            None if it has no `rejection`.

        Raises:
            ValueError: no preprocessor, unequal counts, unreadable pictures,
                empty questions, or `top_k` out of range.

        Example:

        ```python
        vqa.answer("photo.png", "what color is the shape?", top_k=3)
        ```
        """
        checks.check_at_most("top_k", top_k, len(self.answers), "answers")
        sources = self.sources(images, questions, "questions")
        logits = self._run("answer", sources, batch_size)
        # One question may be asked of several pictures.
        texts = sources[1].texts * (len(logits) // sources[1].count)
        found = best_answers(self.rejection, self.answers, logits, texts, top_k)
        results = [verbs.Answers(*row) for row in found]
        return verb_inputs.one_or_all(results, sources)

    def default_loss(self):
        return VQALoss()

    def default_metrics(self):
        return [VQAScore()]


# Of the rule by which a task rejects what it does not know.
_NEEDED, _OPTIONAL = {"kind", "threshold"}, {"temperature", "questions"}
# The table of questions, with the type of each value.
_SORT = {
    **{"name": str, "has": [[str]], "answers": [str]},
    **{"only": bool, "floor": float},
}
_TABLE = {"words": str, "share": float, "skip": [str], "sorts": [_SORT]}


def checked_rejection(rejection):
    """Return a rule as plain values, or None for None.

    Args:
        rejection: dict, as `BridgeTowerVQA` takes it.

    Raises:
        ValueError: other keys or values.
    """
    if rejection is None:
        return None
    if not isinstance(rejection, dict) or {*rejection} - _OPTIONAL != _NEEDED:
        raise ValueError(
            "`rejection` must be a dict with the keys 'kind' and 'threshold'. "
            f"Received: rejection={rejection!r:.200}"
        )
    rule = dict(rejection)
    checks.check_choice("kind", rule["kind"], ("energy",))
    for key in rule.keys() - {"kind", "questions"}:
        checks.check_finite(key, rule[key])
        rule[key] = float(rule[key])
    checks.check_above_zero("temperature", rule.get("temperature", 1.0))
    if "questions" in rule:
        table = rule["questions"]
        right = _is_like(table, _TABLE) and table["sorts"]
        # The last sort takes every question.
        if not right or table["sorts"][-1]["has"]:
            raise ValueError(
                f"`questions` must be like {_TABLE}, and `has` of the last "
                f"sort empty. Received: questions={table!r:.200}"
            )
    return rule


def _is_like(value, like):
    if isinstance(like, dict):
        right = isinstance(value, dict) and {*value} == {*like}
        return right and all(_is_like(value[key], like[key]) for key in like)
    if isinstance(like, list):
        right = isinstance(value, list)
        return right and all(_is_like(one, like[0]) for one in value)
    return isinstance(value, like)


class _Labelled(ClassificationTask):
    """Abstract: one head, `head_name`, whose classes have names."""

    label_arguments = ("labels",)
    recipe_arguments = {"labels": "labels"}
    config_arguments = ("labels",)

    def __init__(self, backbone, preprocessor, labels, head, **kwargs):
        labels = chosen_labels("labels", labels, preprocessor)
        head = {"labels": labels, "num_classes": len(labels), **head}
        heads = {self.head_name: head}
        super().__init__(backbone, preprocessor, heads, **kwargs)
        self.class_names = labels


def _text_inputs(self, backbone):
    """Return the symbolic inputs of the text tower."""
    return {key: backbone.input[key] for key in backbone.text_tower.input}


def _text_outputs(self, inputs):
    """Compute the outputs of the head for the text tower."""
    return self.heads[self.head_name](self.backbone.text_tower(inputs)[-1])


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerImageClassifier(_Labelled):
    """Classifies pictures by the image tower alone.

    The head is one Linear over the first token of the highest tapped state:
    of the encoder's last block, unless `taps` end below -1.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerImageClassifierPreprocessor`, or None.
        labels: list of str, the classes in the order of the logits; by
            default those of the preprocessor.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of `"images"`, float `(batch, S, S, 3)`, normalized.

    Returns:
        float32 tensor `(batch, classes)`: logits. In `fit` and `evaluate`
        `x` is a dict of `"images"`, and `y` ids or labels.

    Raises:
        ValueError: no labels, or others than the preprocessor's.

    Example:

    ```python
    model = BridgeTowerImageClassifier.from_preset(
        "bridgetower_tiny_easy_vqa", labels=["circle", "triangle"],
        random_heads=True)  # It answers by chance until it is trained.
    label, probabilities = model.classify(np.zeros((64, 64, 3), "uint8"))
    ```

    Source: the CIFAR experiments of BridgeTower (AAAI 2023); their script
    never trained the new Linear, here it is trained.
    """

    preprocessor_cls = preprocessing.BridgeTowerImageClassifierPreprocessor
    task_name = "image_classifier"
    verbs = (verbs.CLASSIFY_IMAGE,)
    head_name = "image_class"

    def __init__(self, backbone, preprocessor=None, labels=None, **kwargs):
        super().__init__(backbone, preprocessor, labels, {}, **kwargs)

    def inputs_of(self, backbone):
        return {"images": backbone.input["images"]}

    def outputs_of(self, inputs):
        state = self.backbone.image_tower(inputs["images"])[-1]
        return self.heads[self.head_name](state[:, 0])

    def classify(self, images, batch_size=32):
        """Classify pictures.

        Args:
            images: one picture or a list: paths, encoded bytes, PIL images
                or arrays (see `load_image`).
            batch_size: int, pictures per forward pass.

        Returns:
            `(label, probabilities)`, a dict from each label to its
            probability; a list of such pairs where a list came in.

        Raises:
            ValueError: no preprocessor, or unreadable pictures.
        """
        sources = [verb_inputs.Pictures(self.needed_preprocessor(), images)]
        return self._classified("classify", sources, batch_size)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTextClassifier(_Labelled):
    """Classifies texts, or pairs of texts, by the text tower alone.

    It reads the highest tapped state, as `BridgeTowerImageClassifier`.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerTextClassifierPreprocessor`, or None.
        labels: list of str, the classes in the order of the logits; by
            default those of the preprocessor.
        dropout: float, dropout before both Linears of the head.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of `"token_ids"` and `"padding_mask"`, int32
            `(batch, T)`, and other inputs of the text encoder.

    Returns:
        float32 tensor `(batch, classes)`: logits. In `fit` and `evaluate`
        `x` is a dict of `"text"`, for pairs also `"second_text"`, and `y` ids
        or labels.

    Raises:
        ValueError: no labels, or others than the preprocessor's.

    Example:

    ```python
    model = BridgeTowerTextClassifier.from_preset(
        "bridgetower_tiny_easy_vqa", labels=["question", "answer"],
        random_heads=True)  # It answers by chance until it is trained.
    label, probabilities = model.classify("is there a circle?")
    ```

    Source: the GLUE experiments of BridgeTower (AAAI 2023), with the head of
    RoBERTa's sequence classifiers.
    """

    preprocessor_cls = preprocessing.BridgeTowerTextClassifierPreprocessor
    task_name = "text_classifier"
    verbs = (verbs.CLASSIFY_TEXT,)
    head_name = "text_class"
    config_arguments = ("labels", "dropout")
    inputs_of, outputs_of = _text_inputs, _text_outputs

    def __init__(
        self, backbone, preprocessor=None, labels=None, dropout=0.1, **kwargs
    ):
        head = {"dropout": dropout}
        super().__init__(backbone, preprocessor, labels, head, **kwargs)

    def classify(self, texts, second_texts=None, batch_size=32):
        """Classify texts, or pairs of texts.

        Args:
            texts: one text or a list.
            second_texts: None, or as many texts, each the partner of one.
            batch_size: int, texts per forward pass.

        Returns:
            `(label, probabilities)`, a dict from each label to its
            probability; a list of such pairs where a list came in.

        Raises:
            ValueError: no preprocessor, unequal counts or empty texts.
        """
        sources = [TextPairs(self.needed_preprocessor(), texts, second_texts)]
        return self._classified("classify", sources, batch_size)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerTextRegressor(BridgeTowerTask):
    """Rates texts, or pairs of texts, with a number, by the text tower alone.

    It reads the highest tapped state, as `BridgeTowerImageClassifier`.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerTextRegressorPreprocessor`, or None.
        dropout: float, dropout before both Linears of the head.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: as `BridgeTowerTextClassifier`.

    Returns:
        float32 tensor `(batch, 1)`. In `fit` and `evaluate` `x` is as
        `BridgeTowerTextClassifier` takes it, and `y` numbers `(batch,)`.

    Example:

    ```python
    model = BridgeTowerTextRegressor.from_preset(
        "bridgetower_tiny_easy_vqa", random_heads=True)
    model.rate("is it red?", "is it blue?")
    ```

    Source: STS-B of the GLUE experiments of BridgeTower (AAAI 2023).
    """

    preprocessor_cls = preprocessing.BridgeTowerTextRegressorPreprocessor
    task_name = "text_regressor"
    head_name = "text_number"
    verbs = (verbs.RATE,)
    config_arguments = ("dropout",)
    inputs_of, outputs_of = _text_inputs, _text_outputs

    def __init__(self, backbone, preprocessor=None, dropout=0.1, **kwargs):
        head = {"num_classes": 1, "dropout": dropout}
        super().__init__(
            backbone, preprocessor, {"text_number": head}, **kwargs
        )

    def rate(self, texts, second_texts=None, batch_size=32):
        """Rate texts, or pairs of texts, with a number.

        Args:
            texts: one text or a list.
            second_texts: None, or as many texts, each the partner of one.
            batch_size: int, texts per forward pass.

        Returns:
            float, or a list of floats where a list came in.

        Raises:
            ValueError: no preprocessor, unequal counts or empty texts.
        """
        sources = [TextPairs(self.needed_preprocessor(), texts, second_texts)]
        numbers = self._run("rate", sources, batch_size)[:, 0]
        return verb_inputs.one_or_all(numbers.tolist(), sources)

    def default_loss(self):
        return keras.losses.MeanSquaredError(dtype="float32")

    def default_metrics(self):
        return [keras.metrics.MeanAbsoluteError(dtype="float32")]
