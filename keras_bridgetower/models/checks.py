"""Checks of features, encoders and preprocessors before use."""

import keras
import numpy as np

from keras_bridgetower.backend.backend_ops import host_array
from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.encoders.registry import has_rule
from keras_bridgetower.encoders.registry import text_length

# Largest magnitude of a normalized pixel. CLIP's statistics give values from
# -1.8 to 2.2, ImageNet's from -2.2 to 2.7. The limit allows a standard
# deviation of 1/32 and strong augmentation. Pixels from 0 to 255 exceed it,
# unless a whole batch is nearly black.
LARGEST_PIXEL = 32
# Layers with which an image encoder normalizes raw pixels itself.
NORMALIZING = (keras.layers.Rescaling, keras.layers.Normalization)
# Features with one value for each token.
_IDS = ("token_ids", "masked_token_ids")
TOKEN_FEATURES = (*_IDS, "padding_mask", "segment_ids")
# All features whose values are checked.
CHECKED_FEATURES = ("images", *_IDS, "padding_mask", "mask_positions")


def are_states(x):
    """Return True for states of a tower, in place of what the tower reads."""
    # Pictures have four axes and token ids two.
    return len(getattr(x, "shape", ())) == 3


def without_states(features, expected):
    """Return the features that the towers read, not those that are states.

    Args:
        features: dict of tensors.
        expected: dict of symbolic inputs.
    """
    more = {"images": -1, "token_ids": 1}
    return {
        name: x
        for name, x in features.items()
        if name not in more
        or name not in expected
        or len(x.shape) != len(expected[name].shape) + more[name]
    }


def check_features(features, expected, backbone, preprocessor=None):
    """Raise if inputs lack a key or have wrong shapes or values.

    Values are checked where `host_array` can read them: symbolic tensors have
    none, and reading from an accelerator would stall it. The dtype of images
    is always checked.

    Args:
        features: the inputs of the caller.
        expected: dict of symbolic inputs.
        backbone: the `BridgeTowerBackbone` that receives them.
        preprocessor: the preprocessor that may have made them, or None.

    Raises:
        ValueError: keys, shapes or values are wrong.
    """
    if not isinstance(features, dict) or not set(expected) <= set(features):
        found = (
            sorted(features)
            if isinstance(features, dict)
            else (type(features).__name__)
        )
        raise ValueError(
            f"`inputs` must be a dict with the keys {sorted(expected)}; missing"
            f": {sorted(set(expected) - set(features))}. Received: "
            f"inputs={found}"
        )
    shapes = {k: tuple(getattr(features[k], "shape", ())) for k in expected}
    read = without_states({k: features[k] for k in expected}, expected)
    wrong = any(
        len(shapes[key]) != len(expected[key].shape)
        or sizes_differ(shapes[key][1:], expected[key].shape[1:])
        for key in read
    )
    first = next(iter(shapes.values()))
    # Not by a set: symbolic sizes of a PyTorch export cannot be hashed.
    if wrong or any(x[:1] != first[:1] for x in shapes.values()):
        wanted = {k: tuple(x.shape) for k, x in expected.items()}
        raise ValueError(
            f"All inputs must have the model's shapes, {wanted}, and the same "
            f"batch size. Received: shapes={shapes}"
        )
    read = {k: x for k, x in read.items() if k in CHECKED_FEATURES}
    check_feature_values(read, backbone, preprocessor)


def check_lengths(features, text_encoder):
    """Raise if texts exceed the encoder's positions or features differ.

    Args:
        features: dict of tensors; anything else has no text.
        text_encoder: the encoder that receives the text, or None.
    """
    ids = features.get("token_ids") if isinstance(features, dict) else None
    if ids is None:
        return
    shape = tuple(ids.shape)
    limit = text_length(text_encoder)
    known = None not in (shape[1], limit)
    fixed = known and get_entry(text_encoder).fixed_length
    if known and (shape[1] != limit if fixed else shape[1] > limit):
        # A fixed length needs a preprocessor without `buckets`, too.
        raise ValueError(
            f"`token_ids` must have {'' if fixed else 'at most '}{limit} "
            "tokens, the positions of the text encoder: set sequence_length="
            f"{limit} of the tokenizer. Received: token_ids of shape {shape}"
        )
    for name in TOKEN_FEATURES:
        other = tuple(getattr(features.get(name), "shape", shape))
        if sizes_differ(shape, other):
            raise ValueError(
                f"`{name}` must have the shape of `token_ids`. Received: "
                f"{name} of shape {other}, token_ids of shape {shape}"
            )


def check_feature_values(features, backbone, preprocessor=None):
    """Raise on raw images, ids or positions out of range, masks with gaps.

    Args:
        features: dict of arrays and tensors `(batch, ...)`.
        backbone, preprocessor: as `check_features`.

    Raises:
        ValueError: it names the feature and the wrong value.
    """
    if "images" in features:
        converter = getattr(preprocessor, "image_converter", None)
        _check_pixels(features["images"], backbone.image_encoder, converter)
    arrays = {k: host_array(v) for k, v in features.items() if k != "images"}
    arrays = {k: v for k, v in arrays.items() if v is not None}
    vocabulary_size = getattr(backbone.text_encoder, "vocabulary_size", None)
    for name in _IDS:
        if name in arrays and vocabulary_size is not None:
            check_ids(name, arrays[name], vocabulary_size)
    if {"mask_positions", "token_ids"} <= set(arrays):
        length = arrays["token_ids"].shape[-1]
        check_ids("mask_positions", arrays["mask_positions"], length)
    if "padding_mask" in arrays:
        mask = np.asarray(arrays["padding_mask"])
        binary = np.isin(mask, (0, 1)).all() and (mask[..., :1] == 1).all()
        if not binary or (mask[..., 1:] > mask[..., :-1]).any():
            raise ValueError(
                "`padding_mask` must be 1 at tokens and 0 behind them. Pad at "
                f"the end. Received: padding_mask={mask.tolist()!r:.200}"
            )


def _check_pixels(images, encoder, converter):
    """Raise on images that were not normalized.

    All values that `mean` and `std` of `converter` can give are accepted.
    """
    check_pixel_dtype(images, encoder)
    values = host_array(images)
    if values is None or not values.size:
        return
    limit = LARGEST_PIXEL
    if converter is not None:
        mean, std = np.array([converter.mean, converter.std])
        largest = (np.maximum(abs(mean), abs(1 - mean)) / std).max()
        # With a margin for rounding to float32.
        limit = max(limit, 1.001 * largest)
    low, high = float(values.min()), float(values.max())
    if max(-low, high) > limit:
        _reject_raw(encoder, f"images with values from {low} to {high}")


def check_pixel_dtype(images, encoder):
    """Raise on integer images, without reading a value."""
    if "float" not in str(images.dtype):
        _reject_raw(encoder, f"images of dtype {images.dtype}")


def _reject_raw(encoder, received):
    layers = layers_in(encoder)
    if not any(isinstance(layer, NORMALIZING) for layer in layers):
        raise ValueError(
            "`images` must be normalized floats, as "
            f"`BridgeTowerImageConverter` makes them. Received: {received}"
        )


def check_ids(name, ids, count, ignored=None):
    """Raise on values that are not integers from 0 to `count - 1`.

    Args:
        name: str, the name of the values in the error.
        ids: NumPy array.
        count: int, number of ids.
        ignored: int, one more allowed value, such as -100, or None.
    """
    ids = np.asarray(ids)
    good = (ids >= 0) & (ids < count) & (ids == np.floor(ids))
    if ignored is not None:
        good |= ids == ignored
    if not good.all():
        other = "" if ignored is None else f", or {ignored} to leave one out"
        raise ValueError(
            f"`{name}` must hold integers from 0 to {count - 1}{other}. "
            f"Received: {name} with {ids[~good].reshape(-1)[0].item()!r}"
        )


def sizes_differ(a, b):
    """Return True if two shapes differ; None matches any size."""
    pairs = zip(a, b, strict=False)
    return any(x != y for x, y in pairs if x is not None and y is not None)


def check_encoder(side, encoder, policy):
    """Raise if an encoder reads the other modality, or has another dtype.

    Args:
        side: `"image"` or `"text"`.
        encoder: the encoder.
        policy: dtype policy of the backbone.
    """
    name = f"{side}_encoder"
    # `Tower` rejects an encoder without a rule.
    if has_rule(type(encoder)) and get_entry(encoder).side != side:
        raise ValueError(
            f"`{name}` must be an encoder of {side}s. Received: {name} "
            f"of class {type(encoder).__name__}"
        )
    own = getattr(encoder, "dtype_policy", policy)
    if own.compute_dtype != policy.compute_dtype:
        raise ValueError(
            f"`{name}` must have the dtype of the backbone. Received: {name} "
            f"of dtype {own.name}, backbone of dtype {policy.name}"
        )


def check_preprocessor(backbone, preprocessor, inputs):
    """Raise if the output of a preprocessor does not match a task.

    Args:
        backbone: the backbone.
        preprocessor: the preprocessor.
        inputs: dict of the task's inputs. Only those of the backbone are
            checked; the preprocessor's class determines the others.
    """
    features = set(preprocessor.features)
    wanted = set(backbone.input) & set(inputs)
    if wanted != features:
        raise ValueError(
            f"`preprocessor` must make the features {sorted(wanted)}. Set its "
            f"`features`. Received: features={preprocessor.features}"
        )
    if "images" in wanted:
        size = preprocessor.image_converter.image_size
        if size != backbone.image_size:
            raise ValueError(
                "`preprocessor` must make images of the backbone's size, "
                f"{backbone.image_size}. Received: image_size={size}"
            )
    if preprocessor.buckets is not None and wanted == set(backbone.input):
        last = backbone.text_tower.summary == "last"
        if last or backbone.fusion.reads_padding:
            raise ValueError(
                "`buckets` of the preprocessor must be None with an adaptive "
                "manager or text_summary='last': outputs depend on the "
                f"padding. Received: buckets={preprocessor.buckets}"
            )
