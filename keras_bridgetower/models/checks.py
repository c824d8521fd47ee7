"""Checks of features, encoders and preprocessors before use."""

import numpy as np

# Features with one value for each token.
TOKEN_FEATURES = (
    "token_ids",
    "padding_mask",
    "segment_ids",
    "masked_token_ids",
)


def check_features(features, expected, text_encoder=None):
    """Refuse inputs that lack a key, or whose shapes or values do not fit.

    Values are checked in NumPy arrays only. Those of a backend's tensors may
    be symbolic, and reading them from a device would make it wait.

    Args:
        features: what the caller passed.
        expected: dict of symbolic inputs.
        text_encoder: the encoder that gets the text, or None.

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
    check_lengths(features, text_encoder)
    known = {k: v for k, v in features.items() if isinstance(v, np.ndarray)}
    check_feature_values(known, text_encoder)


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


def check_feature_values(features, text_encoder=None):
    """Refuse ids and positions out of range, and masks with gaps.

    Args:
        features: dict of NumPy arrays `(batch, ...)`.
        text_encoder: the encoder that gets the text, or None.

    Raises:
        ValueError: it names the feature and the wrong value.
    """
    vocabulary_size = getattr(text_encoder, "vocabulary_size", None)
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
