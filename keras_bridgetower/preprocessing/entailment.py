"""Features and class ids for visual entailment."""

import keras

from keras_bridgetower.preprocessing.class_ids import ClassIds
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor

# In the order of their ids, as SNLI-VE and the authors number them; SNLI's
# own order in Hugging Face's data sets is the reverse.
ENTAILMENT_LABELS = ("contradiction", "neutral", "entailment")


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerEntailmentPreprocessor(BridgeTowerPreprocessor):
    """Features and class ids for visual entailment.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as `BridgeTowerPreprocessor`; the text is the
            hypothesis alone.
        y: ids `(batch,)`, 0 for contradiction, 1 for neutral, 2 for
            entailment, or these names.

    Returns:
        Features, or `(features, ids int32 (batch,))`.

    Raises:
        ValueError: an id or a name outside the three, or labels of another
            form.

    Example:

    ```python
    preprocessor = BridgeTowerEntailmentPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    image = np.zeros((64, 64, 3), "uint8")
    x = {"images": image, "text": "the shape is red."}
    x, y = preprocessor(x, y="entailment")  # y = 2
    ```

    Source: SNLI-VE (Xie et al., 2019); BridgeTower's `snli` data set.
    """

    def __init__(self, tokenizer, image_converter, **kwargs):
        super().__init__(tokenizer, image_converter, **kwargs)
        self._class_ids = ClassIds(ENTAILMENT_LABELS)

    def targets(self, y, batched=True):
        return self._class_ids(y, batched)
