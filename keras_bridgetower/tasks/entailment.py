"""Visual entailment: does a picture support or contradict a text?"""

import keras

from keras_bridgetower.preprocessing.classification import ENTAILMENT_LABELS
from keras_bridgetower.preprocessing.classification import (
    BridgeTowerEntailmentPreprocessor,
)
from keras_bridgetower.preprocessing.verb_inputs import check_same_or_single
from keras_bridgetower.preprocessing.verb_inputs import one_or_all
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.classification import ClassificationTask
from keras_bridgetower.tasks.classification import labelled


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

    preprocessor_cls = BridgeTowerEntailmentPreprocessor
    task_name = "entailment"
    verbs = (verbs.ENTAIL,)
    recipe_arguments = {"head_hidden_scale": "head_scale"}
    config_arguments = ("head_hidden_scale",)

    def __init__(
        self, backbone, preprocessor=None, head_hidden_scale=2, **kwargs
    ):
        head = {
            "num_classes": len(ENTAILMENT_LABELS),
            "head_hidden_scale": head_hidden_scale,
        }
        super().__init__(backbone, preprocessor, {"entailment": head}, **kwargs)
        self.head_hidden_scale = head_hidden_scale

    def outputs_of(self, inputs):
        pooled = self.backbone.fuse(inputs, outputs=("pooled",))["pooled"]
        return self.heads["entailment"](pooled)

    @property
    def class_names(self):
        return list(ENTAILMENT_LABELS)

    @classmethod
    def head_arguments(cls, heads):
        saved = heads.get("entailment", {})
        names = ("head_hidden_scale",)
        return {k: saved[k] for k in names if k in saved}

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
        check_same_or_single(sources)
        found = self.probabilities("entail", sources, batch_size)
        return one_or_all(labelled(ENTAILMENT_LABELS, found), sources)
