"""NLVR2: is a statement about two pictures true?"""

import keras
from keras import ops

from keras_bridgetower.models.fusion import IMAGE_ROW
from keras_bridgetower.models.fusion import SECOND_IMAGE_ROW
from keras_bridgetower.preprocessing.classification import TRUTH_VALUES
from keras_bridgetower.preprocessing.classification import (
    BridgeTowerNLVR2Preprocessor,
)
from keras_bridgetower.preprocessing.verb_inputs import PicturePairs
from keras_bridgetower.preprocessing.verb_inputs import Texts
from keras_bridgetower.preprocessing.verb_inputs import check_order
from keras_bridgetower.preprocessing.verb_inputs import one_or_all
from keras_bridgetower.presets import verbs
from keras_bridgetower.tasks.classification import ClassificationTask
from keras_bridgetower.tasks.contrastive import text_states

# The type row of each picture, left first.
ROWS = (IMAGE_ROW, SECOND_IMAGE_ROW)


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

    preprocessor_cls = BridgeTowerNLVR2Preprocessor
    task_name = "nlvr2"
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
        head = {
            "num_classes": len(TRUTH_VALUES),
            "head_hidden_scale": head_hidden_scale,
            "dropout": dropout,
        }
        super().__init__(backbone, preprocessor, {"nlvr2": head}, **kwargs)
        self.head_hidden_scale = head_hidden_scale
        self.dropout = dropout

    def inputs_of(self, backbone):
        side = backbone.image_size
        pictures = keras.Input((len(ROWS), side, side, 3), name="images")
        return {**backbone.input, "images": pictures}

    def outputs_of(self, inputs):
        backbone, images = self.backbone, inputs["images"]
        text = text_states(backbone, inputs)
        states = backbone.image_tower(
            ops.reshape(images, (-1, *images.shape[2:]))
        )
        states = [ops.reshape(x, (-1, 2, *x.shape[1:])) for x in states]
        pooled = [
            backbone.fusion(
                text,
                [x[:, place] for x in states],
                padding_mask=inputs["padding_mask"],
                outputs=("pooled",),
                image_row=row,
            )["pooled"]
            for place, row in enumerate(ROWS)
        ]
        return self.heads["nlvr2"](ops.concatenate(pooled, axis=-1))

    @classmethod
    def head_arguments(cls, heads):
        saved = heads.get("nlvr2", {})
        names = ("head_hidden_scale", "dropout")
        return {k: saved[k] for k in names if k in saved}

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
        check_order(left, statements, "statements")
        texts = Texts(preprocessor, statements, "statements")
        sources = [PicturePairs(preprocessor, left, right, texts), texts]
        probabilities = self.probabilities("compare", sources, batch_size)
        results = [
            (bool(row.argmax()), float(row.max())) for row in probabilities
        ]
        return one_or_all(results, sources)
