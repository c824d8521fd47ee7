"""A cross-encoder for the evaluators of sentence-transformers."""

import dataclasses
from typing import ClassVar

from sentence_transformers.cross_encoder import CrossEncoderModelCardData

from keras_bridgetower import BridgeTowerReranker


@dataclasses.dataclass(eq=False)
class BridgeTowerCrossEncoder(BridgeTowerReranker):
    """Answers the evaluators of sentence-transformers as a `CrossEncoder`.

    Needs `sentence-transformers`. They note their results in
    `model_card_data`.

    Args:
        task, batch_size: as `BridgeTowerReranker`; or use `from_preset`.

    Example:

    ```python
    evaluator = CrossEncoderRerankingEvaluator([{
        "query": "a cat", "positive": ["cat.jpg"], "negative": ["cup.jpg"]}])
    evaluator(BridgeTowerCrossEncoder.from_preset(
        "bridgetower_large_itm_mlm_itc"))
    ```
    """

    num_labels: ClassVar[int] = 1
    model_card_data: CrossEncoderModelCardData = dataclasses.field(
        default_factory=CrossEncoderModelCardData
    )

    def predict(
        self,
        inputs,
        batch_size=None,
        show_progress_bar=False,
        convert_to_numpy=True,
        prompt_name=None,
    ):
        """Score pairs, as `BridgeTowerReranker.predict`.

        Args:
            inputs, batch_size: as there.
            show_progress_bar: False or None: there is none.
            convert_to_numpy: True: scores are a NumPy array.
            prompt_name: None: no prompt is read.

        Raises:
            ValueError: another value of the last three, or as there.
        """
        for name, value, only in (
            ("show_progress_bar", show_progress_bar or False, False),
            ("convert_to_numpy", convert_to_numpy, True),
            ("prompt_name", prompt_name, None),
        ):
            if value is not only:
                raise ValueError(
                    f"`{name}` must be {only}. Received: {name}={value!r}"
                )
        return super().predict(inputs, batch_size)
