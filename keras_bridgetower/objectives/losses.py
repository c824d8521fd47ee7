"""Losses of VQA, masked language modeling and contrastive training.

Each computes one value for every sample of this replica. Samples of weight 0
are padding, and their content does not change the loss.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.models import heads
from keras_bridgetower.models.checks import sizes_differ

# The label of padded samples. No `ignore_id` or image id has this value.
_PADDED = -(2**31)
# Whatever `keras.config.floatx()`: half precision would round ids and scores.
_FLOAT32 = {"dtype": "float32"}


def _without_padding(y_true, sample_weight):
    """Replace labels of samples whose weight is 0."""
    y_true = ops.convert_to_tensor(y_true)
    if sample_weight is None:
        return y_true
    counted = ops.not_equal(weight_column(sample_weight), 0)
    shape = (-1, *(1 for _ in y_true.shape[1:]))
    return ops.where(ops.reshape(counted, shape), y_true, _PADDED)


def is_padding(sample_weight):
    """Return which samples only pad a batch: those with the weight -0.0.

    A weight of 0.0 leaves a sample out of the sum of a batch's losses, but
    not out of the number of rows that Keras divides by. -0.0 does both.

    Args:
        sample_weight: float tensor `(batch, 1)`.

    Returns:
        Bool tensor `(batch,)`.

    Example:

    ```python
    is_padding(np.array([[1.0], [0.0], [-0.0]]))  # False, False, True
    ```
    """
    weights = ops.reshape(sample_weight, (-1,))
    return ops.equal(weights, 0) & ops.signbit(weights)


def weight_column(sample_weight, samples=None):
    """Return sample weights as a column `(batch, 1)`, for any loss.

    Keras aligns weights `(batch,)` with the last axis of a loss. If labels
    have several axes, this is not the axis of the samples.

    Args:
        sample_weight: float tensor `(batch,)` or `(batch, 1)`, or None.
        samples: int, the number of samples, or None if it is not known.

    Returns:
        Float tensor `(batch, 1)`, or None.

    Raises:
        ValueError: weights of another shape.
    """
    if sample_weight is None:
        return None
    weights = ops.convert_to_tensor(sample_weight)
    shape = tuple(weights.shape)
    one_each = len(shape) == 1 or shape[1:] == (1,)
    if not one_each or sizes_differ(shape, (samples,)):
        raise ValueError(
            "`sample_weight` must hold one weight for each sample, (batch,). "
            f"Received: sample_weight of shape {shape}, samples={samples}"
        )
    return ops.reshape(weights, (-1, 1))


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class VQALoss(keras.losses.Loss):
    """Sigmoid cross-entropy of soft scores, summed over the answers.

    Call arguments:
        y_true: float tensor `(batch, answers)`, soft scores in 0..1.
        y_pred: float tensor `(batch, answers)`, logits.

    Returns:
        Scalar: the mean over the batch.

    Raises:
        ValueError: the shapes differ.

    Example:

    ```python
    VQALoss()(np.array([[1.0, 0.0]]), np.array([[0.0, 0.0]]))  # 2 log 2
    ```

    Source: BridgeTower's `compute_vqa`: mean over all elements times the
    number of answers.
    """

    def __init__(self, name="vqa_loss", **kwargs):
        super().__init__(name=name, **_FLOAT32 | kwargs)

    def call(self, y_true, y_pred):
        check_soft_scores(y_true, y_pred)
        y_true = ops.cast(y_true, y_pred.dtype)
        # PyTorch's own formula: Keras' function parts the compiled step there.
        losses = (1 - y_true) * y_pred - ops.log_sigmoid(y_pred)
        return ops.sum(losses, axis=-1)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class MaskedLMLoss(keras.losses.Loss):
    """Cross-entropy, averaged over the masked tokens of the global batch.

    The value of a sample is the sum over its masked tokens, divided by the
    mean number of masked tokens in the global batch. So the mean over samples
    is the mean over all masked tokens, for any number of devices.

    Args:
        ignore_id: int, the label of slots without a masked token.

    Call arguments:
        y_true: int tensor `(batch, M)`, the masked tokens.
        y_pred: float tensor `(batch, M, vocabulary)`, logits.

    Returns:
        Scalar: the mean over the masked tokens, 0 if there are none.

    Example:

    ```python
    logits = np.zeros((1, 2, 50), "float32")
    MaskedLMLoss()(np.array([[7, -100]]), logits)  # log(50)
    ```

    Source: BridgeTower's `compute_mlm`.
    """

    def __init__(self, ignore_id=-100, name="masked_lm_loss", **kwargs):
        super().__init__(name=name, **_FLOAT32 | kwargs)
        self.ignore_id = ignore_id

    def __call__(self, y_true, y_pred, sample_weight=None):
        y_true = _without_padding(y_true, sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        y_true = ops.cast(y_true, "int32")
        counted = y_true != _PADDED
        weights = counted & (y_true != self.ignore_id)
        weights = ops.cast(weights, y_pred.dtype)
        losses = weights * ops.sparse_categorical_crossentropy(
            ops.maximum(y_true, 0), y_pred, from_logits=True
        )
        count = backend_ops.global_sum(ops.sum(weights))
        # Keras then averages over the samples of all replicas. The factor
        # `samples` undoes it.
        samples = ops.sum(ops.cast(counted[:, 0], weights.dtype))
        samples = backend_ops.global_sum(samples)
        # Without any masked token the losses are 0 already.
        return ops.sum(losses, axis=-1) * samples / ops.maximum(count, 1)

    def get_config(self):
        return {**super().get_config(), "ignore_id": self.ignore_id}


def pack_embeddings(embeddings, logit_scale=0.0):
    """Pack embeddings and their scale into one tensor for `ContrastiveLoss`.

    Args:
        embeddings: dict from a kind (`"text"`, `"image"`, `"fused"`) to
            float tensors `(batch, width)`.
        logit_scale: scalar tensor, the logarithm of the factor by which their
            products are multiplied. Metrics omit it.

    Returns:
        Float tensor `(batch, kinds * width + 1)`.
    """
    kinds = [embeddings[k] for k in heads.KINDS if k in embeddings]
    scale = ops.ones_like(kinds[0][:, :1]) * ops.exp(logit_scale)
    return ops.concatenate([*kinds, scale], axis=-1)


@keras.saving.register_keras_serializable(package="keras_bridgetower")
class ContrastiveLoss(keras.losses.Loss):
    """Cross-entropy of the matching embedding in the global batch.

    Samples with the same image id match each other; the target is divided
    equally among them.

    Args:
        ways: `"three_way"`: text to image, text to fused and image to fused,
            as in transformers; `"two_way"`: text to image and image to text,
            as in the authors' code.

    Call arguments:
        y_true: int tensor `(batch,)`, image ids.
        y_pred: float tensor, as `pack_embeddings` returns it.

    Returns:
        Scalar: the mean over batch and directions.

    Example:

    ```python
    embeddings = {"text": np.eye(2), "image": np.eye(2)}
    packed = pack_embeddings(embeddings, logit_scale=0.0)
    ContrastiveLoss("two_way")(np.array([0, 1]), packed)  # 0.313
    ```

    Source: transformers' `BridgeTowerForContrastiveLearning`; BridgeTower's
    `compute_itc` and, for equal image ids, `compute_irtr_itm_itc`.
    """

    def __init__(self, ways="three_way", name="contrastive_loss", **kwargs):
        super().__init__(name=name, **_FLOAT32 | kwargs)
        self.ways = ways

    def __call__(self, y_true, y_pred, sample_weight=None):
        # Keras casts labels to float32, which would make large ids equal. So
        # ids are replaced by small numbers.
        y_true = _without_padding(_first_of_same_id(y_true), sample_weight)
        return super().__call__(y_true, y_pred, sample_weight)

    def call(self, y_true, y_pred):
        ids = ops.reshape(ops.cast(y_true, "int32"), (-1,))
        *embeddings, scale = unpack_embeddings(y_pred, self.ways)
        kinds = dict(zip(heads.KINDS, embeddings, strict=False))
        all_ids, _ = backend_ops.all_gather(ids)
        counted = ops.expand_dims(all_ids != _PADDED, 0)
        same = ops.expand_dims(ids, 1) == ops.expand_dims(all_ids, 0)
        same = ops.cast(counted & same, y_pred.dtype)
        # Padded samples have no match: avoid a division by 0.
        count = ops.maximum(ops.sum(same, axis=-1, keepdims=True), 1)
        target = same / count
        losses = []
        for own, other in heads.WAYS[self.ways]:
            others, _ = backend_ops.all_gather(kinds[other])
            logits = scale * ops.matmul(kinds[own], ops.transpose(others))
            logits = ops.where(counted, logits, -1e9)
            losses.append(-ops.sum(target * ops.log_softmax(logits), axis=-1))
        return sum(losses) / len(losses)

    def get_config(self):
        return {**super().get_config(), "ways": self.ways}


def _first_of_same_id(ids):
    """Return the index in the global batch of the first sample of each id."""
    ids = ops.reshape(ids, (-1,))
    every, _ = backend_ops.all_gather(ids)
    same = ops.expand_dims(ids, 1) == ops.expand_dims(every, 0)
    count = ops.shape(every)[0]
    numbers = ops.arange(count, dtype="int32")
    return ops.min(ops.where(same, numbers, count), axis=1)


def unpack_embeddings(packed, ways):
    """Undo `pack_embeddings`.

    Args:
        packed: float tensor `(batch, kinds * width + 1)`.
        ways: as in `ContrastiveLoss`.

    Returns:
        list of float tensors: `(batch, width)` for each kind, in order, and
        last the factor `(batch, 1)`.
    """
    return [
        *ops.split(packed[:, :-1], len(heads.embedding_kinds(ways)), axis=-1),
        packed[:, -1:],
    ]


def check_scores(name, scores):
    """Raise on soft scores below 0 or above 1."""
    scores = np.asarray(scores)
    # NaN passes here; the loss becomes NaN, which training reports.
    wrong = (scores < 0) | (scores > 1)
    if wrong.any():
        raise ValueError(
            f"`{name}` must hold soft scores from 0 to 1. Received: {name} "
            f"with {scores[wrong].reshape(-1)[0].item()!r}"
        )


def check_soft_scores(y_true, y_pred):
    """Raise if targets have another shape than the logits.

    They would be broadcast, which gives a wrong loss without an error.
    """
    if tuple(y_true.shape)[1:] != tuple(y_pred.shape)[1:]:
        raise ValueError(
            "`y` must hold soft scores (batch, answers). Received: y of shape "
            f"{tuple(y_true.shape)}, logits of shape {tuple(y_pred.shape)}"
        )
