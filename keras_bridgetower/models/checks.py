"""Checks of what comes from outside: one clear error each."""

import numpy as np

# Features with one entry for each token.
TEXT_FEATURES = (
    "token_ids",
    "padding_mask",
    "segment_ids",
    "masked_token_ids",
)


def check_features(features, expected, text_encoder=None):
    """Refuse inputs that lack a key, or whose shapes or values do not fit.

    Of NumPy arrays the values are looked at too; those of a backend's tensors
    may be symbolic, or on a device that would have to be waited for.

    Args:
        features: what the caller passed.
        expected: dict of symbolic inputs.
        text_encoder: the encoder that reads the text, or None.

    Raises:
        ValueError: keys, shapes or values are wrong.
    """
    if not isinstance(features, dict) or not set(expected) <= set(features):
        missing = sorted(set(expected) - set(features))
        raise ValueError(
            f"`inputs` must be a dict with the keys {sorted(expected)}; "
            f"missing: {missing}. A preprocessor makes them all. "
            f"Received: inputs={_describe(features)}"
        )
    shapes = {k: tuple(getattr(features[k], "shape", ())) for k in expected}
    if "images" in expected:
        _check_images(shapes["images"], expected["images"].shape[1:])
    text = {shapes[key] for key in expected if key in TEXT_FEATURES}
    batches = {shape[:1] for shape in shapes.values()}
    ranks_differ = any(
        len(shape) != len(expected[key].shape) for key, shape in shapes.items()
    )
    if len(text) > 1 or len(batches) > 1 or ranks_differ:
        raise ValueError(
            "All inputs must have the same batch size, and those of the text "
            f"the same length. Received: shapes={shapes}"
        )
    check_lengths(features, text_encoder)
    known = {k: v for k, v in features.items() if isinstance(v, np.ndarray)}
    check_feature_values(known, text_encoder)


def check_lengths(features, text_encoder):
    """Refuse texts that are longer than the encoder has positions.

    Args:
        features: dict of tensors; others have no text.
        text_encoder: the encoder that reads them, or None.
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


def check_feature_values(features, text_encoder=None):
    """Refuse ids and positions out of range, and masks with gaps.

    Args:
        features: dict of NumPy arrays `(batch, ...)`.
        text_encoder: the encoder that reads the text, or None.

    Raises:
        ValueError: it says which value of which feature.
    """
    rows = getattr(text_encoder, "vocabulary_size", None)
    for name in ("token_ids", "masked_token_ids"):
        if name in features and rows is not None:
            check_ids(name, features[name], rows)
    if {"mask_positions", "token_ids"} <= set(features):
        length = features["token_ids"].shape[-1]
        check_ids("mask_positions", features["mask_positions"], length)
    if "padding_mask" in features:
        mask = np.asarray(features["padding_mask"])
        whole = np.isin(mask, (0, 1)).all() and (mask[..., :1] == 1).all()
        if not whole or (mask[..., 1:] > mask[..., :-1]).any():
            raise ValueError(
                "`padding_mask` must be 1 for the tokens of a text and 0 for "
                "the padding behind them: positions are counted from the "
                "first column. Pad at the end. Received: "
                f"padding_mask={mask.tolist()!r:.200}"
            )


def check_ids(name, ids, count, ignored=None):
    """Refuse values that are no integers from 0 to below a number.

    Args:
        name: str, what they are called.
        ids: NumPy array.
        count: int.
        ignored: int, a value that is allowed besides, or None.
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


def check_scores(name, scores):
    """Refuse scores out of 0 to 1."""
    scores = np.asarray(scores)
    # What is no number at all, the loss tells.
    wrong = (scores < 0) | (scores > 1)
    if wrong.any():
        raise ValueError(
            f"`{name}` must hold soft scores from 0 to 1; divide percentages "
            f"by 100. Received: {name} with "
            f"{scores[wrong].reshape(-1)[0].item()!r}"
        )


def _check_images(shape, expected):
    if shape[1:] != expected:
        axes = ", ".join(map(str, expected))
        raise ValueError(
            f"`images` must have shape (batch, {axes}). "
            "Resize them with the image converter, or the model with "
            f"`with_image_size`. Received: images of shape {shape}"
        )


def check_soft_scores(y_true, y_pred):
    """Refuse targets that would be broadcast against the logits."""
    if tuple(y_true.shape)[1:] != tuple(y_pred.shape)[1:]:
        raise ValueError(
            "`y` must hold soft scores (batch, answers) like the logits. The "
            "preprocessor makes them from ids and strings; without one, call "
            "`preprocessor.targets(y)` yourself. Received: y of shape "
            f"{tuple(y_true.shape)}, logits of shape {tuple(y_pred.shape)}"
        )


def check_row_weights(weights, rows=None):
    """Refuse sample weights that are not one for each sample.

    Args:
        weights: array or tensor.
        rows: int, the number of samples, or None where it is unknown.
    """
    shape = tuple(weights.shape)
    one_each = len(shape) == 1 or len(shape) == 2 and shape[1] == 1
    if not one_each or None not in (shape[0], rows) and shape[0] != rows:
        raise ValueError(
            "`sample_weight` must hold one weight for each sample, (batch,). "
            "Tokens are left out by the label -100. Received: sample_weight "
            f"of shape {shape}"
            + ("" if rows is None else f" for {rows} samples")
        )


def check_masked_ids(y_true, y_pred):
    """Refuse labels that are not one id for each row of logits."""
    shape = tuple(y_true.shape)
    if len(shape) != 2 or shape[1:] != tuple(y_pred.shape)[1:-1]:
        raise ValueError(
            "`y_true` must hold token ids (batch, M) for logits (batch, "
            f"M, vocabulary). Received: y_true of shape {shape}, y_pred "
            f"of shape {tuple(y_pred.shape)}"
        )


def check_image_ids(ids):
    """Refuse labels that are not one id for each row."""
    # No word on the dtype: with several replicas on TensorFlow, Keras builds
    # losses on floats in place of any labels.
    shape = tuple(ids.shape)
    if shape[1:] not in ((), (1,)):
        raise ValueError(
            "`y` must hold image ids, integers (batch,). The preprocessor "
            f"makes them from strings. Received: y of shape {shape}"
        )


def _describe(features):
    if isinstance(features, dict):
        return {k: tuple(getattr(v, "shape", ())) for k, v in features.items()}
    return type(features).__name__


def check_dtype(name, encoder, policy):
    own = getattr(encoder, "dtype_policy", policy)
    if own.compute_dtype != policy.compute_dtype:
        raise ValueError(
            f"`{name}` must have the dtype of the backbone. Build it with the "
            f"same `dtype`. Received: {name} of dtype {own.name}, "
            f"backbone of dtype {policy.name}"
        )


def check_image_tower(tower):
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
    keys = tower.input if isinstance(tower.input, dict) else ()
    if not {"token_ids", "padding_mask"} <= set(keys):
        raise ValueError(
            "`text_encoder` must take a dict of token_ids and padding_mask. "
            f"Received: text_encoder={tower.encoder.name} with inputs "
            f"{tower.input}"
        )


def check_preprocessor(backbone, preprocessor, inputs):
    """Refuse a preprocessor whose output the task cannot take.

    Args:
        backbone: the backbone.
        preprocessor: the preprocessor.
        inputs: dict of the task's inputs. Those that the backbone does not
            have are made by the preprocessor's class itself.
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
