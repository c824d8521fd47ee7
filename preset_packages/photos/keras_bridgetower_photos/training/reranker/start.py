"""The task that learns scenes of photographs, and what it begins with."""

import numpy as np
from keras_bridgetower_drawings.training.emoji.model import SPACE
from keras_bridgetower_drawings.training.scenes import start

import keras_bridgetower as kbt
from keras_bridgetower_photos.training import model

# Its text tower reads captions of scenes.
TEXTS = "bridgetower_tiny_scenes_retrieval"
SIDE, GRID = 384, 12
FUSION = start.FUSION | {
    "image_taps": (-3, -1, None),
    "image_positions": "coordinates_and_colors",
}
# Standard deviations of what enters the fusion: names and colors, and places,
# which would be lost in a layer norm beside what is seen clearly.
SPREAD, PLACED = 3.0, 6.0


def new_task(encoder, names, **fusion):
    """Return a task with a new fusion.

    Places of pictures have the vectors of the classes that Lite0 sees there.

    Args:
        encoder: an image encoder with a classifier, of which it has
            `GRID` x `GRID` places.
        names: `names.Names`.
    """
    known = kbt.BridgeTowerRetrieval.from_preset(TEXTS)
    backbone = kbt.BridgeTowerBackbone(
        encoder, known.backbone.text_encoder, **FUSION | fusion
    )
    task = kbt.BridgeTowerRetrieval(
        backbone,
        kbt.BridgeTowerRetrievalPreprocessor(
            known.preprocessor.tokenizer, model.converter(backbone.image_size)
        ),
        projection_dim=SPACE,
        matching="word_similarity_and_fused",
    )
    head = task.heads["itc"]
    for layer in (head.text_dense, head.image_dense):
        kernel, bias = layer.get_weights()
        if layer is head.image_dense:
            kernel[:] = 0.0
            kernel[: len(names.classes)] = names.classes
        layer.set_weights([kernel, 0 * bias])
    task.new_heads.restore({})
    return task


def enter(task, sees, reads, states):
    """Let what places and nouns say enter the fusion.

    The lowest state that the fusion reads says where things are, and the
    highest one what they are.

    Args:
        task: that of `new_task`.
        sees: `Seeing`, of the lowest state.
        reads: `Reading`.
        states: arrays `(pictures, places, width)`, states of pictures by
            which what enters is scaled.
    """
    projections = task.backbone.fusion.image_projections
    names = np.asarray(reads.names)
    _, _, directions = np.linalg.svd(names, full_matrices=False)
    main = directions[: start.NAMES].T
    start.enter_texts(task, reads, main)
    for projection in projections:
        kernel, bias = projection.get_weights()
        projection.set_weights([0 * kernel, bias])
    low, high = (
        states[at].reshape(-1, states[at].shape[-1])
        for at in (-len(projections), -1)
    )
    placed = slice(start.NAMES, start.NAMES + 5)
    _put(projections[0], low, *sees.columns(), start.NAMES)
    kernel = task.heads["itc"].image_dense.get_weights()[0] @ main
    _put(projections[-1], high, kernel, 0.0, 0)
    kernel, bias = projections[0].get_weights()
    kernel[:, placed] *= PLACED / SPREAD
    bias[placed] *= PLACED / SPREAD
    projections[0].set_weights([kernel, bias])


def know_drawings(task):
    """Let a fusion begin with what that of the drawings' scenes does.

    Names and places enter both in the same columns.

    Args:
        task: that of `new_task`.
    """
    known = kbt.BridgeTowerRetrieval.from_preset(TEXTS)
    fusion, given = task.backbone.fusion, known.backbone.fusion
    pairs = [*zip(fusion.steps, given.steps, strict=True)]
    pairs += [(fusion.text_pooler, given.text_pooler)]
    pairs += [(fusion.image_pooler, given.image_pooler)]
    pairs += [(task.heads["itm"], known.heads["itm"])]
    for mine, other in pairs:
        mine.set_weights(other.get_weights())


def _put(projection, states, columns, bias, first):
    """Set columns of a projection so that all have one spread in the mean."""
    kernel, biases = projection.get_weights()
    found = states @ columns + bias
    scale = SPREAD / found.std(0)
    if not first:
        # Names keep how much each direction tells.
        scale = SPREAD / np.sqrt(found.var(0).mean())
    last = first + columns.shape[1]
    kernel[:, first:last] = columns * scale
    biases[first:last] = (bias - found.mean(0)) * scale
    projection.set_weights([kernel, biases])
