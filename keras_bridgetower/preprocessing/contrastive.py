"""Features and image ids for contrastive training."""

import warnings

import keras
import numpy as np

from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.retrieval import as_image_ids
from keras_bridgetower.preprocessing.tf_graph import apply_numpy


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerContrastivePreprocessor(BridgeTowerPreprocessor):
    """Features and image ids for contrastive training.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        **kwargs: `features` and `name`, as `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as `BridgeTowerPreprocessor`.
        y: image ids `(batch,)`, ints or strings, equal where texts and
            pictures fit each other; or None: then every pair fits itself
            alone.

    Returns:
        Features, or `(features, image ids int32 (batch,))`. A batch of one
        pair is warned about once: it has no negatives to learn from.

    Raises:
        ValueError: ids of another kind.

    Example:

    ```python
    preprocessor = BridgeTowerContrastivePreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa")
    images = np.zeros((2, 64, 64, 3), "uint8")
    x, y = preprocessor({"images": images, "text": ["a dot", "a line"]},
                        y=["1.png", "2.png"])
    ```

    Source: the image ids of BridgeTower's retrieval fine-tuning.
    """

    _warned = False

    def targets(self, y, batched=True):
        if not batched:
            y = y if hasattr(y, "shape") else np.asarray(y)
            return as_image_ids(y[None])[0]
        ids = as_image_ids(y)
        return apply_numpy(self._looked_at, [ids], ("int32", tuple(ids.shape)))

    def _looked_at(self, ids):
        self.warn_if_alone(len(ids))
        return ids

    def warn_if_alone(self, pairs):
        """Warn, once, of a training batch of one pair."""
        if pairs == 1 and not self._warned:
            self._warned = True
            warnings.warn(
                "A batch of one pair has no negatives: its contrastive loss "
                "is 0 and nothing is learnt from it. Make `batch_size` "
                "larger, or drop the remainder of the data.",
                stacklevel=2,
            )
