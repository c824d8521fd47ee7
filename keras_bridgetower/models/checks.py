"""Checks of features, encoders and preprocessors before use."""

import keras
import numpy as np

from keras_bridgetower.backend.backend_ops import host_array
from keras_bridgetower.backend.keras_private import patches as keras_patches

# Largest magnitude of a normalized pixel. CLIP's statistics give values from
# -1.8 to 2.2, ImageNet's from -2.2 to 2.7. The limit allows a standard
# deviation of 1/32 and strong augmentation, and is exceeded by pixels from 0
# to 255, unless a whole batch is nearly black.
LARGEST_PIXEL = 32
# Layers with which an image encoder normalizes raw pixels itself.
NORMALIZING = (keras.layers.Rescaling, keras.layers.Normalization)
# Features whose values are checked.
LOOKED_AT = (
    "images",
    "token_ids",
    "masked_token_ids",
    "padding_mask",
    "mask_positions",
)
# Features with one value for each token.
TOKEN_FEATURES = (
    "token_ids",
    "padding_mask",
    "segment_ids",
    "masked_token_ids",
)


def check_features(features, expected, backbone, preprocessor=None):
    """Refuse inputs that lack a key, or whose shapes or values do not fit.

    Values are checked where `host_array` can read them: symbolic tensors have
    none, and reading those on an accelerator would make it wait. The dtype of
    pictures is always checked.

    Args:
        features: what the caller passed.
        expected: dict of symbolic inputs.
        backbone: the `BridgeTowerBackbone` that gets them.
        preprocessor: what may have made the features, or None.

    Raises:
        ValueError: keys, shapes or values are wrong.
    """
    if not isinstance(features, dict) or not set(expected) <= set(features):
        missing = sorted(set(expected) - set(features))
        raise ValueError(
            f"`inputs` must be a dict with the keys {sorted(expected)}; "
            f"missing: {missing}. Make them with the task's preprocessor, or "
            "pass pictures and strings to `predict` or a verb. "
            f"Received: inputs={_describe(features)}"
        )
    shapes = {k: tuple(getattr(features[k], "shape", ())) for k in expected}
    if "images" in expected:
        _check_images(shapes["images"], expected["images"].shape[1:])
    text = [shapes[key] for key in expected if key in TOKEN_FEATURES]
    batches = [shape[:1] for shape in shapes.values()]
    ranks_differ = any(
        len(shape) != len(expected[key].shape) for key, shape in shapes.items()
    )
    if ranks_differ or _differ(text) or _differ(batches):
        raise ValueError(
            "All inputs must have the same batch size, and those of the text "
            f"the same length. Received: shapes={shapes}"
        )
    check_lengths(features, backbone.text_encoder)
    features = {k: features[k] for k in features if k in LOOKED_AT}
    check_feature_values(features, backbone, preprocessor)


def check_lengths(features, text_encoder):
    """Refuse too many tokens for an encoder, and masks of other texts.

    Args:
        features: dict of tensors; anything else is taken to have no text.
        text_encoder: the encoder that gets the text, or None.
    """
    most = getattr(text_encoder, "max_sequence_length", None)
    ids = features.get("token_ids") if isinstance(features, dict) else None
    length = None if ids is None else ids.shape[1]
    if None not in (length, most) and length > most:
        raise ValueError(
            f"`token_ids` must have at most {most} tokens, the positions of "
            "the text encoder. Shorten the texts. Received: token_ids of "
            f"shape {tuple(ids.shape)}"
        )
    if ids is None:
        return
    for name in TOKEN_FEATURES:
        other = getattr(features.get(name), "shape", ids.shape)
        sizes = zip(tuple(ids.shape), tuple(other), strict=False)
        if any(a != b for a, b in sizes if None not in (a, b)):
            raise ValueError(
                f"`{name}` must have the shape of `token_ids`. Received: "
                f"{name} of shape {tuple(other)}, token_ids of shape "
                f"{tuple(ids.shape)}"
            )


def check_feature_values(features, backbone, preprocessor=None):
    """Refuse raw pictures, ids and positions out of range, masks with gaps.

    Args:
        features: dict of arrays and tensors `(batch, ...)`.
        backbone, preprocessor: as `check_features`.

    Raises:
        ValueError: it names the feature and the wrong value.
    """
    if "images" in features:
        converter = getattr(preprocessor, "image_converter", None)
        check_pixels(features["images"], backbone.image_encoder, converter)
    arrays = {k: host_array(v) for k, v in features.items() if k != "images"}
    features = {k: v for k, v in arrays.items() if v is not None}
    vocabulary_size = getattr(backbone.text_encoder, "vocabulary_size", None)
    for name in ("token_ids", "masked_token_ids"):
        if name in features and vocabulary_size is not None:
            check_ids(name, features[name], vocabulary_size)
    if {"mask_positions", "token_ids"} <= set(features):
        length = features["token_ids"].shape[-1]
        check_ids("mask_positions", features["mask_positions"], length)
    if "padding_mask" in features:
        mask = np.asarray(features["padding_mask"])
        starts = np.isin(mask, (0, 1)).all() and (mask[..., :1] == 1).all()
        # A 1 after a 0 is a token behind padding.
        if not starts or (mask[..., 1:] > mask[..., :-1]).any():
            raise ValueError(
                "`padding_mask` must be 1 for the tokens of a text and 0 for "
                "the padding behind them: positions are counted from the "
                "first column. Pad at the end. Received: "
                f"padding_mask={mask.tolist()!r:.200}"
            )


def check_pixels(images, encoder, converter=None):
    """Refuse pictures that were not normalized.

    Args:
        images: array or tensor of pictures.
        encoder: the image encoder that gets them. One that normalizes raw
            pixels itself takes any.
        converter: the image converter that may have made them, or None. What
            its `mean` and `std` make of a pixel is allowed.

    Raises:
        ValueError: integers, or values that are too large.
    """
    check_pixel_dtype(images, encoder)
    values = host_array(images)
    if values is None or not values.size:
        return
    low, high = float(values.min()), float(values.max())
    if max(-low, high) > _largest_pixel(converter):
        _refuse_raw(encoder, f"images with values from {low} to {high}")


def check_pixel_dtype(images, encoder):
    """As `check_pixels`, without reading a value."""
    if "float" not in str(images.dtype):
        _refuse_raw(encoder, f"images of dtype {images.dtype}")


def _refuse_raw(encoder, received):
    layers = keras_patches.layers_in(encoder)
    if not any(isinstance(layer, NORMALIZING) for layer in layers):
        raise ValueError(
            "`images` must be normalized floats, `(pixels / 255 - mean) / "
            "std`, as `BridgeTowerImageConverter` makes them. Pass raw "
            "pictures to `fit` and `predict` of a task that has a "
            "preprocessor; an image encoder that takes them needs a "
            f"`keras.layers.Rescaling`. Received: {received}"
        )


def _largest_pixel(converter):
    """The largest magnitude that a normalized pixel may have."""
    if converter is None:
        return LARGEST_PIXEL
    made = [
        max(abs(mean), abs(1 - mean)) / std
        for mean, std in zip(converter.mean, converter.std, strict=True)
    ]
    # float32 rounds what is compared with these.
    return max(LARGEST_PIXEL, 1.001 * max(made))


def check_ids(name, ids, count, ignored=None):
    """Refuse values that are not integers from 0 to `count - 1`.

    Args:
        name: str, the name of the values in the error.
        ids: NumPy array.
        count: int, how many ids there are.
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


def _check_images(shape, expected):
    if shape[1:] != expected:
        axes = ", ".join(map(str, expected))
        raise ValueError(
            f"`images` must have shape (batch, {axes}). "
            "Resize them with the image converter, or the model with "
            f"`with_image_size`. Received: images of shape {shape}"
        )


def _differ(values):
    # No set of them: sizes that stand for any size, in an export of PyTorch,
    # cannot be hashed.
    return any(value != values[0] for value in values)


def _describe(features):
    if isinstance(features, dict):
        return {
            k: tuple(v.shape) if hasattr(v, "shape") else type(v).__name__
            for k, v in features.items()
        }
    return type(features).__name__


def check_dtype(name, encoder, policy):
    """Refuse an encoder that computes in another dtype than the backbone."""
    own = getattr(encoder, "dtype_policy", policy)
    if own.compute_dtype != policy.compute_dtype:
        raise ValueError(
            f"`{name}` must have the dtype of the backbone. Build it with the "
            f"same `dtype`. Received: {name} of dtype {own.name}, "
            f"backbone of dtype {policy.name}"
        )


def check_image_tower(tower):
    """Refuse an image encoder that does not take square RGB images."""
    shape = tower.inputs[0].shape
    if isinstance(tower.input, dict) or len(shape) != 4 or shape[3] != 3:
        raise ValueError(
            "`image_encoder` must take one input of images "
            "(batch, side, side, 3). Received: image_encoder="
            f"{tower.encoder.name} with inputs {tower.input}"
        )
    if shape[1] != shape[2]:
        raise ValueError(
            "`image_encoder` must take square images. "
            f"Received: image_shape={shape[1:]}"
        )


def check_text_tower(tower):
    """Refuse a text encoder without token ids or padding mask as inputs."""
    keys = tower.input if isinstance(tower.input, dict) else ()
    if not {"token_ids", "padding_mask"} <= set(keys):
        raise ValueError(
            "`text_encoder` must take a dict of token_ids and padding_mask. "
            f"Received: text_encoder={tower.encoder.name} with inputs "
            f"{tower.input}"
        )


def check_preprocessor(backbone, preprocessor, inputs):
    """Refuse a preprocessor whose output the task cannot use.

    Args:
        backbone: the backbone.
        preprocessor: the preprocessor.
        inputs: dict of the task's inputs. Only those of the backbone are
            checked; the class of the preprocessor makes the others.
    """
    made = set(preprocessor.features)
    wanted = set(backbone.input) & set(inputs)
    if wanted != made:
        raise ValueError(
            f"`preprocessor` must make the features {sorted(wanted)}. Set its "
            f"`features`. Received: features={preprocessor.features}"
        )
    if "images" in wanted:
        _check_image_converter(backbone, preprocessor.image_converter)
    if "token_ids" in wanted:
        _check_tokenizer(backbone.text_encoder, preprocessor.tokenizer)


def _check_image_converter(backbone, converter):
    size = converter.image_size
    if size != backbone.image_size:
        raise ValueError(
            "`preprocessor` must make images of the backbone's size, "
            f"{backbone.image_size}. Set the converter's `image_size`, or use "
            f"`backbone.with_image_size({size})`. "
            f"Received: image_size={size}"
        )


def _check_tokenizer(encoder, tokenizer):
    if tokenizer.sequence_length > encoder.max_sequence_length:
        raise ValueError(
            "`preprocessor` must make texts no longer than the text encoder's "
            f"{encoder.max_sequence_length} positions. Received: "
            f"sequence_length={tokenizer.sequence_length}"
        )


def check_positions(encoder, sequence_length):
    """Refuse texts with more tokens than a text encoder has positions for."""
    most = encoder.max_sequence_length
    if sequence_length > most:
        raise ValueError(
            f"`sequence_length` must be at most {most}, the positions of the "
            "text encoder. Divide longer texts, and embed their parts. "
            f"Received: sequence_length={sequence_length}"
        )
