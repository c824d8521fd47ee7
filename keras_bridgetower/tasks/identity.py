"""Checksums of weights, and settings of a preprocessor."""

import hashlib
import json

import keras

# States of random generators and position ids, which differ by backend.
_SKIPPED_DTYPES = ("int32", "int64", "uint32")


def model_checksum(task):
    """Return the SHA-256 of a task's weights and other values of its heads.

    It is the same on every backend, in hexadecimal.
    """
    parts = weight_sums(task.weights)
    rule = getattr(task, "rejection", None)
    merged = getattr(task.backbone, "image_tokens", None)
    values = task.head_values | ({"rejection": rule} if rule else {})
    values |= {"image_tokens": merged} if merged else {}
    heads = json.dumps(values, sort_keys=True, default=str)
    return hashlib.sha256("".join([*parts, heads]).encode()).hexdigest()


def weight_sums(weights):
    """Return the sorted checksums of weights, a list of str."""
    return sorted(
        hashlib.sha256(
            str(weight.shape).encode() + _array(weight).tobytes()
        ).hexdigest()
        for weight in weights
        if keras.backend.standardize_dtype(weight.dtype) not in _SKIPPED_DTYPES
    )


def picture_settings(preprocessor):
    """Return the settings for pictures; empty if it reads none."""
    converter = preprocessor.image_converter
    if converter is None:
        return {}
    return {
        "image_mode": converter.mode,
        "image_size": converter.image_size,
        "image_divisor": converter.size_divisor,
        "image_crop_pct": converter.crop_pct,
        "image_resample": converter.resample,
        "image_mean": [float(x) for x in converter.mean],
        "image_std": [float(x) for x in converter.std],
    }


def text_settings(preprocessor):
    """Return the settings for texts; empty if it reads none."""
    tokenizer = preprocessor.tokenizer
    if tokenizer is None:
        return {}
    kind = [type(tokenizer).__name__, tokenizer.reading()]
    about = json.dumps([*kind, tokenizer.get_vocabulary()])
    return {
        "sequence_length": tokenizer.sequence_length,
        "tokenizer": hashlib.sha256(about.encode()).hexdigest(),
    }


def _array(weight):
    value = weight.value
    if keras.backend.standardize_dtype(weight.dtype) == "bfloat16":
        # NumPy has no such dtype.
        value = keras.ops.cast(value, "float32")
    return keras.ops.convert_to_numpy(value)
