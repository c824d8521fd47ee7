"""Preprocess judged lists: texts, the candidates of each, and their grades."""

import keras
import numpy as np

from keras_bridgetower.checks import check_count
from keras_bridgetower.objectives.list_losses import PADDING
from keras_bridgetower.preprocessing.preprocessor import BridgeTowerPreprocessor
from keras_bridgetower.preprocessing.tf_graph import apply_numpy
from keras_bridgetower.preprocessing.tf_graph import static_shape

HIGHEST = 30


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerListRankingPreprocessor(BridgeTowerPreprocessor):
    """Makes features and grades of judged lists: a text and its pictures.

    Args:
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`.
        list_size: int, pictures of a list.
        **kwargs: `features` and `name`, as in `BridgeTowerPreprocessor`.

    Call arguments:
        x, sample_weight: as in `BridgeTowerPreprocessor`, but `"images"` are
            lists of `list_size` pictures for each text, or an array
            `(batch, list_size, H, W, 3)`.
        y: grades `(batch, list_size)`: how well each picture fits, from 0 to
            30, at least one of a list above 0. The loss and the metric use
            `2 ** grade`, so 0 to 4 are usual. To fill up a shorter list,
            repeat a picture with the grade -1, which is ignored.

    Returns:
        Features, with `"images"` float32 `(batch, list_size, S, S, 3)`, or
        `(features, grades float32 (batch, list_size))`.

    Raises:
        ValueError: lists of another size, or other grades.

    Example:

    ```python
    preprocessor = BridgeTowerListRankingPreprocessor.from_preset(
        "bridgetower_tiny_easy_vqa", list_size=2)
    image = np.zeros((64, 64, 3), "uint8")
    x = {"images": [[image, image]], "text": ["a red circle"]}
    x, y = preprocessor(x, y=[[1, 0]])
    x["images"].shape  # (1, 2, 64, 64, 3)
    ```
    """

    config_arguments = ("list_size",)

    def __init__(self, tokenizer, image_converter, list_size=8, **kwargs):
        super().__init__(tokenizer, image_converter, **kwargs)
        check_count("list_size", list_size)
        self.list_size = int(list_size)
        self.pictures = (self.list_size,)

    def targets(self, y, batched=True):
        batch = static_shape(y)[:1] if batched else ()
        spec = "float32", (*batch, self.list_size)
        return apply_numpy(lambda y: self._checked(y, len(spec[1])), [y], spec)

    def _checked(self, y, axes):
        grades = np.asarray(y)
        lists = grades.ndim == axes and grades.shape[-1] == self.list_size
        if lists and grades.dtype.kind in "biuf":
            grades = grades.astype("float32")
            known = ((grades >= 0) & (grades <= HIGHEST)) | (grades == PADDING)
            if known.all() and (grades > 0).any(-1).all():
                return grades
        raise ValueError(
            f"`y` must hold {self.list_size} grades for each text, from 0 to "
            f"{HIGHEST} and one of them above 0, or -1 for padding. Received: "
            f"{y!r:.200}"
        )
