"""Checks of what comes from outside: one clear error each."""


def check_choice(name, value, allowed):
    """Refuse a value that is none of the named ones."""
    if value not in allowed:
        raise ValueError(
            f"`{name}` must be one of {list(allowed)}. "
            f"Received: {name}={value!r}"
        )


def check_features(features, expected):
    """Refuse inputs that lack a key or whose shapes do not agree.

    Args:
        features: what the caller passed.
        expected: dict of symbolic inputs.

    Raises:
        ValueError: keys or shapes are wrong.
    """
    if not isinstance(features, dict) or set(features) < set(expected):
        missing = sorted(set(expected) - set(features))
        raise ValueError(
            f"`inputs` must be a dict with the keys {sorted(expected)}; "
            f"missing: {missing}. A preprocessor makes them all. "
            f"Received: inputs={_describe(features)}"
        )
    shapes = {key: tuple(features[key].shape) for key in expected}
    side = expected["images"].shape[1:]
    if shapes["images"][1:] != side:
        raise ValueError(
            f"`images` must have shape (batch, {', '.join(map(str, side))}). "
            "Resize them with the image converter, or the model with "
            f"`with_image_size`. Received: images of shape {shapes['images']}"
        )
    text = {shape for key, shape in shapes.items() if key != "images"}
    batches = {shape[0] for shape in shapes.values()}
    if len(text) > 1 or len(batches) > 1:
        raise ValueError(
            "All inputs must have the same batch size, and those of the text "
            f"the same length. Received: shapes={shapes}"
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


def check_preprocessor(backbone, preprocessor):
    """Refuse a preprocessor whose output the backbone cannot take."""
    wanted, made = set(backbone.input), set(preprocessor.features)
    if wanted != made:
        raise ValueError(
            f"`preprocessor` must make the features {sorted(wanted)}. Set its "
            f"`features`. Received: features={preprocessor.features}"
        )
    size = preprocessor.image_converter.image_size
    if size != backbone.image_size:
        raise ValueError(
            "`preprocessor` must make images of the backbone's size, "
            f"{backbone.image_size}. Set the converter's `image_size`, or use "
            f"`backbone.with_image_size({size})`. "
            f"Received: image_size={size}"
        )
    tokenizer, encoder = preprocessor.tokenizer, backbone.text_encoder
    if tokenizer.sequence_length > encoder.max_sequence_length:
        raise ValueError(
            "`preprocessor` must make texts no longer than the text encoder's "
            f"{encoder.max_sequence_length} positions. Received: "
            f"sequence_length={tokenizer.sequence_length}"
        )
