"""Fine-tuning of the matching head on judged lists."""

import keras
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import check_count
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.metrics.keras_metrics import NDCG
from keras_bridgetower.models import head_table
from keras_bridgetower.objectives.list_losses import ListwiseSoftmaxLoss
from keras_bridgetower.objectives.list_losses import MarginMSELoss
from keras_bridgetower.preprocessing.retrieval import (
    BridgeTowerListRankingPreprocessor,
)
from keras_bridgetower.tasks.contrastive import pair_logits
from keras_bridgetower.tasks.contrastive import text_states
from keras_bridgetower.tasks.task import BridgeTowerTask
from keras_bridgetower.tasks.task import check_made_for

LIST_SIZE = 8  # By default.


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class BridgeTowerListRanking(BridgeTowerTask):
    """Learns to rank pictures by a text from judged lists, or from clicks.

    Trains the matching head of `BridgeTowerRetrieval`: save the task, and
    open it as a `BridgeTowerReranker`. Only the order of its scores has a
    meaning then; probabilities of a match have none. The text tower runs once
    per list. A batch of 32 lists of 8 holds 256 pictures: choose a small
    `batch_size`.

    Args:
        backbone: a `BridgeTowerBackbone`.
        preprocessor: a `BridgeTowerListRankingPreprocessor`, or None.
        list_size: int, pictures of a list; None for that of the preprocessor,
            8 without one.
        labels: `"grades"`, or `"scores"` of a teacher.
        projection_dim, ways, matching: as `BridgeTowerRetrieval`. Contrastive
            heads are not trained, and are there if the matching head reads
            them.
        **kwargs: `name`, `compile`.

    Call arguments:
        inputs: dict of features, as the backbone's, but `"images"` float
            `(batch, list_size, S, S, 3)`.

    Returns:
        float32 tensor `(batch, list_size)`: the scores of
        `BridgeTowerRetrieval.score`. In `fit` and `evaluate` `x`
        is a dict of `"images"`, lists of pictures, and `"text"`, and `y` are
        grades (see `BridgeTowerListRankingPreprocessor`). The default loss is
        `ListwiseSoftmaxLoss`, the metric `NDCG`; of scores `MarginMSELoss`.

    Raises:
        ValueError: a preprocessor that does not fit the backbone, or one of
            another `list_size`.

    Example:

    ```python
    task = BridgeTowerListRanking.from_preset(
        "bridgetower_tiny_easy_retrieval", list_size=2)
    task.compile(loss=kbt.LambdaRankLoss())
    images = np.zeros((3, 2, 64, 64, 3), "uint8")
    task.fit({"images": images, "text": ["a", "b", "c"]}, [[1, 0]] * 3)
    ```
    """

    preprocessor_cls = BridgeTowerListRankingPreprocessor
    label_arguments = ("list_size", "labels")
    config_arguments = (
        *label_arguments,
        *("projection_dim", "ways", "matching"),
    )
    task_name = "list_ranking"

    def __init__(
        self,
        backbone,
        preprocessor=None,
        list_size=None,
        labels="grades",
        projection_dim=None,
        ways="two_way",
        matching="fused",
        **kwargs,
    ):
        if list_size is None:
            list_size = getattr(preprocessor, "list_size", LIST_SIZE)
        check_count("list_size", list_size)
        check_made_for(preprocessor, list_size=list_size, labels=labels)
        self.labels = labels
        # The base class's constructor reads it.
        self.list_size = int(list_size)
        heads = {"itm": head_table.matching_values(matching)}
        if matching != "fused":
            heads["itc"] = {"projection_dim": projection_dim, "ways": ways}
        self.projection_dim, self.ways = projection_dim, ways
        self.matching = matching
        super().__init__(backbone, preprocessor, heads, **kwargs)
        if "itc" in heads:
            self.heads["itc"].trainable = False

    def inputs_of(self, backbone):
        side = backbone.image_size
        pictures = keras.Input((self.list_size, side, side, 3), name="images")
        return {**backbone.input, "images": pictures}

    def outputs_of(self, inputs):
        backbone, images = self.backbone, inputs["images"]

        def for_each(x):
            return backend_ops.repeat_rows(x, self.list_size)

        logits = pair_logits(
            *(backbone, self.heads, self.heads["itm"]),
            [for_each(x) for x in text_states(backbone, inputs)],
            backbone.image_tower(ops.reshape(images, (-1, *images.shape[2:]))),
            for_each(inputs["padding_mask"]),
        )
        scores = match_scores(logits)
        return ops.reshape(scores, (-1, self.list_size))

    @classmethod
    def head_arguments(cls, heads):
        matching = heads.get("itm", {}) | heads.get("itc", {})
        return {"list_size": LIST_SIZE, "labels": "grades", **matching}

    def label_widths(self):
        # Grades are no classes.
        return None

    def default_loss(self):
        graded = self.labels == "grades"
        return ListwiseSoftmaxLoss() if graded else MarginMSELoss()

    def default_metrics(self):
        return [NDCG()] if self.labels == "grades" else []
