"""Classification and regression by the image or the text tower alone."""

import keras

from keras_bridgetower.preprocessing import classification as preprocessing
from keras_bridgetower.preprocessing import verb_inputs
from keras_bridgetower.preprocessing.verb_inputs import TextPairs
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.classification import ClassificationTask
from keras_bridgetower.tasks.classification import chosen_labels
from keras_bridgetower.tasks.task import BridgeTowerTask


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
