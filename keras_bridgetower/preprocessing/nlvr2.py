"""Features and truth values for statements about two pictures."""

import keras

from keras_bridgetower.preprocessing.class_ids import ClassIds
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor

# In the order of their ids, written as in the files of NLVR2.
TRUTH_VALUES = ("False", "True")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerNLVR2Preprocessor(BridgeTowerPreprocessor):
    """Features and truth values of statements about two pictures.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as `BridgeTowerPreprocessor`, but `"images"` are
            pairs, the left picture first: a list of pairs, or arrays
            `(batch, 2, H, W, 3)`.
        y: truth values `(batch,)`: 0 and 1, bools, or "False" and "True".

    Returns:
        Features, with `"images"` float32 `(batch, 2, S, S, 3)`, or
        `(features, ids int32 (batch,))`.

    Raises:
        ValueError: pictures that do not come in pairs, or other labels.

    Example:

    ```python
    preprocessor = BridgeTowerNLVR2Preprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    image = np.zeros((64, 64, 3), "uint8")
    x = {"images": [image, image], "text": "both shapes are red."}
    x, y = preprocessor(x, y="True")
    x["images"].shape, y  # (2, 64, 64, 3), 1
    ```

    Source: NLVR2 (Suhr et al., 2019).
    """

    pictures = (2,)

    def __init__(self, tokenizer, image_converter, **kwargs):
        super().__init__(tokenizer, image_converter, **kwargs)
        self._class_ids = ClassIds(TRUTH_VALUES, kinds="biu")

    def targets(self, y, batched=True):
        return self._class_ids(y, batched)
