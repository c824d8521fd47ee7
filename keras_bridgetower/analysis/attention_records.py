"""Records the attention of a task's cross-modal layers for given inputs."""

import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import is_integer
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.fusion import IMAGE_ROW
from keras_bridgetower.tasks.contrastive import text_states


def check_cross_modal(model):
    """Refuse a task that does not read both pictures and texts."""
    read = [name for name in ("images", "token_ids") if name in model.input]
    if len(read) < 2:
        raise ValueError(
            "`model` must be a task that reads pictures and texts: one of a "
            "single tower has no cross-modal attention. "
            f"Received: model={type(model).__name__}, which reads {read}"
        )


def check_index(name, value, count):
    """Refuse an index of a layer or head that is out of range."""
    if not is_integer(value) or not -count <= value < count:
        raise ValueError(
            f"`{name}` must be an int from {-count} to {count - 1}, there are "
            f"{count}. Received: {name}={value!r}"
        )


def features_of(model, x):
    """Features of raw inputs, without random draws and masking.

    Args:
        model: a task.
        x: dict of raw `"images"` and `"text"`, or of features if the task has
            no preprocessor.

    Returns:
        dict of arrays with a batch axis. For tasks that fill masks, `<mask>`
        in a text becomes the mask token.
    """
    preprocessor = model.preprocessor
    if preprocessor is None:
        return x
    encode = preprocessor.tokenizer.encode
    if "mask_positions" in model.input:
        encode = preprocessor.tokenizer.encode_with_masks
    return preprocessor.features_of(x, encode)[0]


def pixels_of(features):
    """Pixels `(batch, pictures, S, S, 3)`, with one or two pictures a text."""
    images = np.asarray(features["images"])
    return images if images.ndim == 5 else images[:, None]


def tokens_of(model):
    """`(prefix, side)`: number of tokens before the patches, and grid side."""
    count = model.backbone.output["image"].shape[1]
    side = int(np.sqrt(count))
    return count - side**2, side


def branches(model, features):
    """Attention maps over the tokens of both modalities, text first.

    The last layer is computed for all tokens, even if the task's head does
    not read them.

    Args:
        model: a task.
        features: dict of arrays with a batch axis.

    Yields:
        For the first picture of each text, and then for the second one if
        there is one: a list with one entry for each cross-modal layer, lowest
        first. An entry is the result of the layer's `branches`: float arrays
        `(batch, heads, T + P, T + P)`.
    """
    backbone = model.backbone
    fusion = backbone.fusion
    tensors = {
        name: ops.convert_to_tensor(np.asarray(x))
        for name, x in features.items()
        if name in backbone.input and name != "images"
    }
    pictures = pixels_of(features)
    for place in range(pictures.shape[1]):
        with (
            model.inference.reading("attention maps"),
            backend_ops.inference_scope(),
            capture_attention() as captured,
        ):
            image = ops.convert_to_tensor(pictures[:, place])
            outputs = fusion(
                text_states(backbone, tensors),
                backbone.image_tower(image),
                padding_mask=tensors["padding_mask"],
                image_row=IMAGE_ROW + place,
                training=False,
            )
        sizes = tuple(outputs[name].shape[1] for name in ("text", "image"))
        yield [step.branches(captured, sizes) for step in fusion.steps]
