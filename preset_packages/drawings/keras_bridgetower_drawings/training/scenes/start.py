"""The task that learns scenes, with the towers of the released preset."""

import numpy as np
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training.emoji.model import SPACE
from keras_bridgetower_drawings.training.scenes import fusing

PRESET = "bridgetower_tiny_emoji_contrastive"
SIDE, TOKENS = 96, 24
FUSION = {
    "hidden_dim": 96,
    "num_heads": 4,
    "num_layers": 3,
    "taps": (-2, -1, None),
    "projections": "per_layer",
    "dropout": 0.0,
}
# How many directions of names enter the fusion, and their spread there.
NAMES, SPREAD, LARGER = 64, 1.0, 4.0
# Beside what is seen clearly, a small place would be lost in a layer norm.
PLACED = 4.0
WORDS = 10.0  # First scale of the similarity of words.


def new_task(side=SIDE, **fusion):
    """Return a task with a new fusion, whose vectors are the preset's."""
    known = kbt.BridgeTowerContrastive.from_preset(PRESET, image_size=side)
    backbone = kbt.BridgeTowerBackbone(
        known.backbone.image_encoder,
        known.backbone.text_encoder,
        **FUSION | fusion,
    )
    preprocessor = kbt.BridgeTowerRetrievalPreprocessor(
        known.preprocessor.tokenizer, known.preprocessor.image_converter
    )
    task = kbt.BridgeTowerRetrieval(
        backbone,
        preprocessor,
        projection_dim=SPACE,
        matching="word_similarity_and_fused",
    )
    mine, given = task.heads["itc"], known.heads["itc"]
    mine.text_dense.set_weights(given.text_dense.get_weights())
    # There the fusion projects pictures first; here both are one step.
    old = known.backbone.fusion
    kernel, bias = map(np.asarray, old.image_projections[0].get_weights())
    bias = bias + ops.convert_to_numpy(old.type_embedding)[1]
    kernel2, bias2 = given.image_dense.get_weights()
    mine.image_dense.set_weights([kernel @ kernel2, bias @ kernel2 + bias2])
    task.new_heads.restore({})
    return task


def enter(task, sees, reads):
    """Let what places and nouns say enter the fusion.

    Both share the main directions of what places say. Attention begins with how
    alike a noun and a place are, and so does the similarity of words. Of two
    states, the higher one says what is seen, and both say where it is; nouns
    enter with the higher one. A fusion that reads this one alone has no other.

    Args:
        task: that of `new_task`.
        sees: `Seeing`, of which both states are read.
        reads: `Reading`.
    """
    fusion = task.backbone.fusion
    asked = ops.convert_to_numpy(ops.matmul(sees.names, sees.asked.kernel))
    _, _, directions = np.linalg.svd(asked, full_matrices=False)
    main = directions[:NAMES].T
    places = sees.places
    vectors = sees.head.image_dense.get_weights()[0] @ main
    scale = ops.convert_to_numpy(places.norm.gamma)[:, None]
    seen = _columns(
        # Of the last state alone.
        np.concatenate([np.zeros_like(vectors), vectors]),
        *(
            scale * layer.get_weights()[0]
            for layer in (places.where, places.paint)
        ),
    )
    seen[:, NAMES : NAMES + 5] *= PLACED
    low_and_high = np.split(seen, 2)
    states = low_and_high[-len(fusion.image_projections) :]
    for projection, columns in zip(
        fusion.image_projections, states, strict=True
    ):
        _put(projection, columns)
    enter_texts(task, reads, main)


def enter_texts(task, reads, main):
    """Let what nouns say enter, and attention begin with names.

    Args:
        task: that of `new_task`.
        reads: `Reading`.
        main: float `(space, NAMES)`, the main directions of names.
    """
    fusion, head, nouns = task.backbone.fusion, task.heads["itm"], reads.nouns
    told = _columns(
        reads.head.text_dense.get_weights()[0] @ main,
        *(layer.get_weights()[0] for layer in (nouns.part, nouns.paint)),
    )
    _put(fusion.text_projections[-1], told)
    for layer in (head.word_dense, head.patch_dense):
        width = layer.kernel.shape[0]
        layer.set_weights([np.diag(np.arange(width) < NAMES)])
    head.word_scale.assign(WORDS)
    rng = np.random.default_rng(0)
    for step in fusion.steps:
        # The usual start is too small for few steps.
        for weight in step.trainable_weights:
            if weight.name == "kernel":
                weight.assign(LARGER * weight)
    for step in fusion.steps[: fusing.LOOKS + 1]:
        attention = step.text_layer.cross_attention
        for layer in (attention.query_dense, attention.key_dense):
            kernel, bias = layer.get_weights()
            kernel = rng.normal(0, 0.03, kernel.shape).astype("float32")
            # The first heads read the first directions, of names.
            _, heads, width = kernel.shape
            for head in range(heads):
                rows = (np.arange(width) + head * width) % NAMES
                kernel[rows, head, np.arange(width)] += SPREAD
            layer.set_weights([kernel, bias])


def _columns(*kernels):
    """Join kernels whose columns become equally long."""
    return np.concatenate(
        [k / np.linalg.norm(k, axis=0).mean() for k in kernels], axis=1
    )


def _put(projection, columns):
    """Set the first columns of a projection, and enlarge the others."""
    kernel, bias = projection.get_weights()
    kernel = 4 * kernel
    columns = columns[:, : kernel.shape[1]]
    kernel[:, : columns.shape[1]] = (
        columns * np.linalg.norm(kernel, axis=0).mean()
    )
    projection.set_weights([kernel, bias])
