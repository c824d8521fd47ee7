"""*Match*: how probably each of some texts belongs to each of some pictures."""

import dataclasses

import numpy as np

from keras_bridgetower.apps.demo import models


@dataclasses.dataclass(frozen=True)
class Matched:
    """How well M texts and N pictures match.

    Args:
        shares: float array `(M, N)` in 0..1.
        ranked: bool. True if a share is that of a text among all texts of the
            picture; False if it is the probability of a match.
    """

    shares: np.ndarray
    ranked: bool


def match(opened, images, texts, preset):
    """The probabilities that texts and pictures match.

    Args:
        opened: `DemoModels`.
        images: list of N pictures.
        texts: list of M str.
        preset: str.

    Returns:
        `Matched`.
    """
    task = opened.open(preset, models.MATCH)
    task.new_heads.check("match", task.answering_heads)
    features = {}
    pictures, words = task.sources(images, texts, "texts")
    for name, x in pictures.features(0, len(images)).items():
        features[name] = np.tile(x, (len(texts), *[1] * (x.ndim - 1)))
    for name, x in words.features(0, len(texts)).items():
        features[name] = np.repeat(x, len(images), axis=0)
    logits = task.predict_features(features)
    logits = logits.reshape(len(texts), len(images), -1)
    return Matched(_probabilities(logits), logits.shape[-1] == 1)


def _probabilities(logits):
    """Of logits `(M, N, classes)`, the last class is "match"."""
    axis = -1 if logits.shape[-1] > 1 else 0
    weights = np.exp(logits - logits.max(axis=axis, keepdims=True))
    return (weights / weights.sum(axis=axis, keepdims=True))[..., -1]
