"""Reads and writes `transformers` files of tokenizers and image processors."""

import pathlib
import warnings

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
# Numbers may differ by so much: float32 and text round them.
BELOW, ABOVE = 1 - 1e-6, 1 + 1e-6
# Limits of statistics on the scale from 0 to 1.
SMALLEST_STD, LARGEST = 1e-6, 1e6
# Tokens of the shortest text: start, one token, end.
SHORTEST_TEXT = 3


def read(folder, architecture, mode="hf", sequence_length=None):
    """Read the tokenizer and the image converter of a folder.

    Args:
        folder: path of a folder with tokenizer and image processor files.
        architecture: `Architecture` of the model that they must fit.
        mode: str, mode of the converter if no file gives the settings.
        sequence_length: int, number of tokens in a text. By default
            `max_text_len` in the image processor's file, where the published
            models store it.

    Returns:
        `(tokenizer, image_converter)`; the tokenizer is None if the folder
        has no tokenizer files.

    Raises:
        ConversionError: files are damaged, or have settings that this library
            does not support.
    """
    folder = pathlib.Path(folder)
    side = architecture.image_size
    path, saved = _image_processor(folder)
    config = DEFAULTS | (saved if isinstance(saved, dict) else {})
    wrong = _unsupported(config, side)
    if path is None:
        converter = BridgeTowerImageConverter(side, mode=mode)
    elif wrong or not isinstance(saved, dict):
        raise ConversionError(
            "An image processor must be transformers' for BridgeTower, with "
            f"the model's image size {side}.",
            path,
            wrong or ["no settings"],
        )
    else:
        mean, std = (
            tuple(map(float, values)) for values in _statistics(config).values()
        )
        converter = BridgeTowerImageConverter(
            side, "hf", config["size_divisor"], mean, std
        )
    length = min(
        sequence_length or config["max_text_len"], architecture.positions
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


def _image_processor(folder):
    """Return path and values of the image processor, or `(None, {})`."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"
    if path.is_file():
        return path, read_json(path).get("image_processor")
    return None, {}


def _unsupported(config, side):
    """List the settings of an image processor that are not supported."""
    kind = config["image_processor_type"] or "BridgeTower"
    divisor, length = config["size_divisor"], config["max_text_len"]
    fits = {
        # Published files of the base size have `image_size`, the authors' name.
        name: config.get(name) is None or _side(config[name]) == side
        for name in ("size", "crop_size", "image_size")
    }
    fits |= {name: config[name] == value for name, value in FIXED.items()}
    fits |= {
        "size_divisor": is_integer(divisor) and 1 <= divisor <= side,
        "max_text_len": is_integer(length) and length >= SHORTEST_TEXT,
        "image_processor_type": str(kind).startswith("BridgeTower"),
        "rescale_factor": _is_between(
            config["rescale_factor"], BELOW / 255, ABOVE / 255
        ),
    }
    for name, values in _statistics(config).items():
        least = SMALLEST_STD if name == "image_std" else -LARGEST
        fits[name] = len(values) == 3 and all(
            _is_between(value, least, LARGEST) for value in values
        )
    return [f"{name}={config[name]!r:.60}" for name in fits if not fits[name]]


def _is_between(value, least, most):
    # Only compared: an int of the file may be too large for floats.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and least <= value <= most


def _statistics(config):
    """Return mean and standard deviation of pixels from 0 to 1.

    Args:
        config: dict, values of an image processor's file. As in
            transformers, a single number is that of all channels.

    Returns:
        dict of tuples, each of three numbers if the file is valid.
    """
    if config.get("do_normalize") is False:
        return {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
    return {
        name: tuple(config[name])
        if isinstance(config[name], (list, tuple))
        else (config[name],) * 3
        for name in ("image_mean", "image_std")
    }


def _side(size):
    """Return the side of a square from any form of `size`, or None."""
    if isinstance(size, dict):
        names = {"shortest_edge", "height", "width"} & set(size)
        sides = {repr(size[name]) for name in names}
        return size[names.pop()] if len(sides) == 1 else None
    return size


def write(folder, tokenizer, image_converter):
    """Write the files that transformers' `BridgeTowerProcessor` reads.

    Args:
        folder: path of a folder.
        tokenizer: a `BridgeTowerTokenizer`, or None.
        image_converter: a `BridgeTowerImageConverter`, or None. A warning is
            given if its mode is not `"hf"`, because transformers computes
            other pixels.
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
    special = dict(
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        # White space before a mask belongs to it, as here.
        mask_token=dict(
            __type="AddedToken",
            content="<mask>",
            lstrip=True,
            rstrip=False,
            normalized=False,
            single_word=False,
        ),
    )
    write_json(
        folder,
        "tokenizer_config.json",
        dict(
            tokenizer_class="RobertaTokenizer",
            processor_class="BridgeTowerProcessor",
            add_prefix_space=False,
            model_max_length=tokenizer.sequence_length,
            **special,
        ),
    )


def _write_image_processor(folder, image_converter, text_length):
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
