"""Run presets as encoders and cross-encoders of mteb."""

import pathlib

import keras
import numpy as np
from mteb.models import ModelMeta
from mteb.models.abs_encoder import AbsEncoder
from mteb.models.model_meta import ScoringFunction

import keras_bridgetower as kbt
from keras_bridgetower.tasks.identity import model_checksum

DENSE, CROSS_ENCODER = "dense", "cross-encoder"
_FRAMEWORKS = {"torch": "PyTorch", "tensorflow": "TensorFlow", "jax": "JAX"}


def _meta(preset, task, kind, **more):
    """Describe a model for mteb's result files; its revision is a checksum."""
    return ModelMeta.create_empty(
        {
            "name": f"keras_bridgetower/{pathlib.Path(preset).name}-{kind}",
            "revision": model_checksum(task)[:16],
            "n_parameters": task.count_params(),
            "framework": [_FRAMEWORKS[keras.config.backend()]],
            "modalities": ["image", "text"],
            "model_type": [kind],
            **more,
        }
    )


class BridgeTowerEncoder(AbsEncoder):
    """Embeds the texts and pictures of mteb's tasks (`EncoderProtocol`).

    Pairs of a text and a picture get one embedding if the contrastive head is
    three-way.

    Args:
        task: a `BridgeTowerContrastive` with a preprocessor.
        preset: str, its name in the result files.

    Example:

    ```python
    encoder = BridgeTowerEncoder.from_preset(
        "bridgetower_tiny_emoji_contrastive")
    mteb.evaluate(encoder, mteb.get_task("Flickr30kT2IRetrieval"))
    ```
    """

    def __init__(self, task, preset):
        self.model = task
        self.mteb_model_meta = _meta(
            preset,
            task,
            DENSE,
            embed_dim=task.projection_dim,
            similarity_fn_name=ScoringFunction.COSINE,
        )

    @classmethod
    def from_preset(cls, preset, **kwargs):
        """Create an encoder with the contrastive head of a preset.

        Args:
            preset, **kwargs: as `BridgeTowerContrastive.from_preset`.
        """
        task = kbt.BridgeTowerContrastive.from_preset(preset, **kwargs)
        return cls(task, preset)

    def encode(self, inputs, *, batch_size=32, **kwargs):
        """Embed the rows of a task.

        Args:
            inputs: mteb's `DataLoader`: batches with `"text"`, list of str,
                `"image"`, list of PIL images, or both.
            batch_size: int, rows of a forward pass.
            **kwargs: what mteb says of the task, ignored: embeddings are the
                same for every task.

        Returns:
            float32 array `(rows, projection_dim)`, rows of length 1.

        Raises:
            ValueError: pairs for a two-way head, or empty texts.
        """
        found = [
            self.model.embed(batch.get("image"), batch.get("text"), batch_size)
            for batch in inputs
        ]
        return np.concatenate(found)


class BridgeTowerCrossEncoder:
    """Scores the pairs of mteb's reranking tasks (`CrossEncoderProtocol`).

    Args:
        reranker: a `BridgeTowerReranker`.
        preset: str, its name in the result files.

    Example:

    ```python
    task = task.convert_to_reranking("predictions", top_k=20)
    mteb.evaluate(BridgeTowerCrossEncoder.from_preset(
        "bridgetower_tiny_emoji_retrieval"), task)
    ```
    """

    def __init__(self, reranker, preset):
        self.model = reranker
        self.mteb_model_meta = _meta(preset, reranker.task, CROSS_ENCODER)

    @classmethod
    def from_preset(cls, preset, **kwargs):
        """Create a cross-encoder with the matching head of a preset.

        Args:
            preset, **kwargs: as `BridgeTowerReranker.from_preset`.
        """
        return cls(
            kbt.BridgeTowerReranker.from_preset(preset, **kwargs), preset
        )

    def predict(self, inputs1, inputs2, *, batch_size=32, **kwargs):
        """Score pairs of a text and a picture.

        Args:
            inputs1, inputs2: mteb's `DataLoader`s, with equal rows: one has
                `"text"`, the other `"image"`.
            batch_size: int, pairs of a forward pass.
            **kwargs: what mteb says of the task, ignored.

        Returns:
            float32 array `(pairs,)`, as `BridgeTowerReranker.predict`.

        Raises:
            ValueError: pairs of two texts or of two pictures.
        """
        scores = []
        for first, second in zip(inputs1, inputs2, strict=True):
            pairs = list(zip(_items(first), _items(second), strict=True))
            scores.append(self.model.predict(pairs, batch_size))
        return np.concatenate(scores)


def _items(batch):
    """Return the rows of a batch as `BridgeTowerReranker` takes them."""
    kinds = [kind for kind in ("text", "image") if kind in batch]
    rows = zip(*(batch[kind] for kind in kinds), strict=True)
    return [dict(zip(kinds, row, strict=True)) for row in rows]
