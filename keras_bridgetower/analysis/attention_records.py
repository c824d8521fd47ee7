"""What the cross-modal layers of a task look at, picture by picture."""

import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.models.attention import capture_attention
from keras_bridgetower.models.fusion import IMAGE_ROW
from keras_bridgetower.tasks.embed import text_states


def check_cross_modal(model):
    """Refuse a task that joins no text with a picture."""
    read = [name for name in ("images", "token_ids") if name in model.input]
    if len(read) < 2:
        raise ValueError(
            "`model` must be a task that reads pictures and texts: one of a "
            "single tower has no cross-modal attention. "
            f"Received: model={type(model).__name__}, which reads {read}"
        )


def check_index(name, value, count):
    """Refuse a layer or head that is not there; negative from the end."""
    if not isinstance(value, int) or not -count <= value < count:
        raise ValueError(
            f"`{name}` must be an int from {-count} to {count - 1}, there are "
            f"{count}. Received: {name}={value!r}"
        )


def features_of(model, x):
    """Features of raw inputs, nothing drawn and nothing hidden.

    Args:
        model: a task.
        x: dict of raw `"images"` and `"text"`; of features, if the task has
            no preprocessor.

    Returns:
        dict of arrays with a batch axis; `<mask>` in a text is the mask token
        for tasks that fill it.
    """
    preprocessor = model.preprocessor
    if preprocessor is None:
        return x
    encode = preprocessor.tokenizer.encode
    if "mask_positions" in model.input:
        encode = preprocessor.tokenizer.encode_with_masks
    return preprocessor.features_of(x, encode)[0]


def pixels_of(features):
    """Pictures `(batch, pictures, S, S, 3)`: one, or a pair, for each text."""
    images = np.asarray(features["images"])
    return images if images.ndim == 5 else images[:, None]


def tokens_of(model):
    """`(prefix, side)`: image tokens before the patches, patches a side."""
    count = model.backbone.output["image"].shape[1]
    side = int(np.sqrt(count))
    return count - side**2, side


def branches(model, features):
    """Attention over the tokens of both modalities joined, text first.

    The last layer is computed for all tokens, also those that the task's head
    does not read.

    Args:
        model: a task.
        features: dict of arrays with a batch axis.

    Yields:
        For each picture that belongs to a text, a list with one entry for
        each cross-modal layer, lowest first: what the layer's `branches`
        gives, float arrays `(batch, heads, T + P, T + P)`.
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
