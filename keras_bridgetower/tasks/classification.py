"""Base class of the tasks that choose one class for each sample."""

import keras
import numpy as np

from keras_bridgetower.tasks.inference import joined
from keras_bridgetower.tasks.task import BridgeTowerTask


def class_loss():
    """Softmax cross-entropy of class ids, never rounded."""
    return keras.losses.SparseCategoricalCrossentropy(
        from_logits=True, dtype="float32"
    )


def class_accuracy():
    """Accuracy of the class with the highest logit."""
    return keras.metrics.SparseCategoricalAccuracy(
        name="accuracy", dtype="float32"
    )


class ClassificationTask(BridgeTowerTask):
    """Abstract: softmax cross-entropy of class ids, and their accuracy."""

    def default_loss(self):
        return class_loss()

    def default_metrics(self):
        return [class_accuracy()]

    def label_words(self):
        return "class ids or their names (batch,)"

    def probabilities(self, name, sources, batch_size):
        """Compute the probabilities of the classes for a verb.

        Args:
            name: str, the verb.
            sources: list of `Features` and `Pictures`.
            batch_size: int, samples per forward pass.

        Returns:
            float64 array `(batch, classes)`.
        """
        logits = joined(
            self.batches(name, sources, batch_size, buckets=self.buckets)
        ).astype("float64")
        weights = np.exp(logits - logits.max(axis=-1, keepdims=True))
        return weights / weights.sum(axis=-1, keepdims=True)


def labelled(names, probabilities):
    """Return the best class and all probabilities by name of each sample.

    Args:
        names: list of str, the classes.
        probabilities: float array `(batch, classes)`.

    Returns:
        list of `(label, dict from label to probability)`.
    """
    return [
        (names[row.argmax()], dict(zip(names, row.tolist(), strict=True)))
        for row in probabilities
    ]
