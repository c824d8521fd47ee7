"""Reads and writes `transformers` files of tokenizers and image processors."""

import math
import pathlib
import warnings

import numpy as np

from keras_bridgetower.checks import is_integer
from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tokenizers import TEXT_LENGTH
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.registry import write_json

# Settings that cannot differ; 3 is Pillow's number of the bicubic filter.
FIXED = dict(do_resize=True, do_center_crop=True, do_rescale=True, resample=3)
# Defaults of settings that a file omits.
DEFAULTS = dict(
    FIXED,
    image_processor_type="BridgeTower",
    size_divisor=32,
    max_text_len=TEXT_LENGTH,
    rescale_factor=1 / 255,
    image_mean=MEAN,
    image_std=STD,
)


def read(folder, architecture, mode="hf", sequence_length=None):
    """Read the tokenizer and the image converter of a folder.

    Args:
        folder: path of a folder with tokenizer and image processor files.
        architecture: `Architecture` of the model.
        mode: str, mode of the converter if no file gives the settings.
        sequence_length: int, number of tokens in a text. By default
            `max_text_len` in the image processor's file, where the published
            models store it.

    Returns:
        `(tokenizer, image_converter)`; the tokenizer is None if the folder
        has no tokenizer files.

    Raises:
        ConversionError: files are damaged, do not fit the model, or have
            settings that this library does not support.
    """
    folder = pathlib.Path(folder)
    side = architecture.image_size
    path, saved = saved_image_processor(folder)
    try:
        config = DEFAULTS | saved
        wrong = _unsupported(config, side)
        if path is None:
            converter = BridgeTowerImageConverter(side, mode=mode)
        else:
            mean, std = statistics(config)
            converter = BridgeTowerImageConverter(
                side, "hf", config["size_divisor"], mean, std
            )
        length = sequence_length or config["max_text_len"]
        length = min(length, architecture.positions)
    except (TypeError, ValueError, ArithmeticError) as error:
        wrong = [f"{error!s:.300}"]
    if wrong:
        raise ConversionError(
            "An image processor must be transformers' for BridgeTower, with "
            f"the model's image size {side}.",
            path or folder,
            wrong,
        )
    tokenizer = tokenizers.read(folder, architecture.text_encoder, length)
    rows = architecture.vocabulary_size
    if tokenizer is not None and tokenizer.vocabulary_size() > rows:
        raise ConversionError(
            "A tokenizer must not have more tokens than the model has rows.",
            folder,
            [f"{tokenizer.vocabulary_size()} tokens, {rows} rows"],
        )
    return tokenizer, converter


def saved_image_processor(folder):
    """Return path and values of the image processor, or `(None, {})`."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"
    values = path.is_file() and read_json(path).get("image_processor")
    return (path, values) if values else (None, {})


def _unsupported(config, side):
    """List the settings of an image processor that are not supported."""
    kind = config["image_processor_type"] or "BridgeTower"
    fits = {
        # Published files of the base size have `image_size`, the authors' name.
        name: config.get(name) is None or side_of(config[name])[0] == side
        for name in ("size", "crop_size", "image_size")
    }
    fits |= {name: config[name] == value for name, value in FIXED.items()}
    fits["image_processor_type"] = str(kind).startswith("BridgeTower")
    # The file may have a rounded factor.
    factor = config["rescale_factor"]
    fits["rescale_factor"] = math.isclose(factor, 1 / 255, rel_tol=1e-6)
    return [f"{name}={config[name]!r:.60}" for name in fits if not fits[name]]


def statistics(config):
    """Return mean and standard deviation of pixels from 0 to 1, as tuples.

    As in transformers, a single number is that of all channels.
    """
    if config.get("do_normalize") is False:
        return (0.0,) * 3, (1.0,) * 3
    return tuple(
        tuple(np.broadcast_to(np.asarray_chkfinite(value, float), 3).tolist())
        for value in (config["image_mean"], config["image_std"])
    )


def side_of(size, to_square=True):
    """Return a side in pixels, and True if it is that of the shorter side.

    Args:
        size: any form of a size in a file; the side is None for others.
        to_square: bool, True if one number is the side of a square.
    """
    if isinstance(size, dict):
        size = {k: v for k, v in size.items() if v is not None}
        if set(size) == {"shortest_edge"}:
            size, to_square = size["shortest_edge"], False
        else:
            # Other keys make it too long.
            size = [size.pop("height", None), size.pop("width", None), *size]
    if isinstance(size, (list, tuple)):
        to_square = True
        size = size[0] if len(size) == 2 and size[0] == size[1] else None
    return size if is_integer(size) else None, not to_square


def write(folder, tokenizer, image_converter):
    """Write the files that transformers' `BridgeTowerProcessor` reads.

    Args:
        folder: path of a folder.
        tokenizer: a `BridgeTowerTokenizer`, or None.
        image_converter: a `BridgeTowerImageConverter`, or None. A warning is
            given if transformers computes other pixels.
    """
    folder = pathlib.Path(folder)
    length = TEXT_LENGTH
    if tokenizer is not None:
        length = tokenizer.sequence_length
        _write_tokenizer(folder, tokenizer)
    if image_converter is not None:
        _write_image_processor(folder, image_converter, length)


def _write_tokenizer(folder, tokenizer):
    tokenizer.save_assets(folder)
    (folder / "vocabulary.json").rename(folder / "vocab.json")
    # As in this library, white space before a mask belongs to it. The other
    # special tokens are those of the class.
    mask = dict.fromkeys(("rstrip", "normalized", "single_word"), False)
    mask |= dict(__type="AddedToken", content="<mask>", lstrip=True)
    write_json(
        folder,
        "tokenizer_config.json",
        dict(
            tokenizer_class="RobertaTokenizer",
            processor_class="BridgeTowerProcessor",
            add_prefix_space=False,
            model_max_length=tokenizer.sequence_length,
            mask_token=mask,
        ),
    )


def _write_image_processor(folder, image_converter, text_length):
    added = image_converter.square.added_values()
    if added:
        warnings.warn(
            "The file of BridgeTower's image processor has no place for "
            f"{added}. Pixels that transformers computes will differ, also in "
            "a preset that is opened from this folder.",
            stacklevel=2,
        )
    if image_converter.mode != "hf":
        warnings.warn(
            "transformers resizes the shorter side of a picture and crops the "
            "center, as the mode 'hf' does, not as "
            f"mode={image_converter.mode!r}. Its pixels of pictures that are "
            "not square will differ, also in a preset that is opened from this "
            f"folder, unless image_mode={image_converter.mode!r} is passed to "
            "`from_preset`.",
            stacklevel=2,
        )
    size = {"shortest_edge": image_converter.image_size}
    write_json(
        folder,
        "preprocessor_config.json",
        dict(
            FIXED,
            image_processor_type="BridgeTowerImageProcessor",
            processor_class="BridgeTowerProcessor",
            max_text_len=text_length,
            size=size,
            crop_size=size,
            size_divisor=image_converter.size_divisor,
            rescale_factor=1 / 255,
            image_mean=image_converter.mean,
            image_std=image_converter.std,
            do_normalize=True,
            do_pad=True,
        ),
    )
