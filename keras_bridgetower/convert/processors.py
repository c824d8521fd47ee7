"""Reads and writes `transformers` files of tokenizers and image processors."""

import pathlib
import warnings

from keras_bridgetower.checks import is_integer
from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tokenizers import TEXT_LENGTH
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD
from keras_bridgetower.presets.registry import write_json

# Pillow's number of the bicubic filter.
BICUBIC = 3
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
        sequence_length: int, number of tokens in a text; by default the
            `max_text_len` of the image processor's file, which is where the
            published models store it.

    Returns:
        `(tokenizer, image_converter)`; the tokenizer is None if the folder
        has no tokenizer files.

    Raises:
        ConversionError: files are damaged, or have settings that this library
            does not support.
    """
    folder = pathlib.Path(folder)
    path, config = _image_processor(folder)
    side = architecture.image_size
    wrong = [] if path is None else _unsupported(config, side)
    if wrong:
        raise ConversionError(
            "An image processor must be transformers' for BridgeTower, with "
            f"the model's image size {side}.",
            path,
            wrong,
        )
    length = sequence_length or config.get("max_text_len", TEXT_LENGTH)
    length = min(length, architecture.positions)
    if path is None:
        converter = BridgeTowerImageConverter(side, mode=mode)
    else:
        divisor = config.get("size_divisor", 32)
        mean, std = _statistics(config).values()
        converter = BridgeTowerImageConverter(
            side, "hf", divisor, tuple(map(float, mean)), tuple(map(float, std))
        )
    return _tokenizer(folder, architecture, length), converter


def _tokenizer(folder, architecture, sequence_length):
    tokenizer = tokenizers.read(
        folder, architecture.text_encoder, sequence_length
    )
    rows = architecture.vocabulary_size
    if tokenizer is not None and tokenizer.vocabulary_size() > rows:
        raise ConversionError(
            "A tokenizer must not have more tokens than the model has rows.",
            folder,
            [f"{tokenizer.vocabulary_size()} tokens, {rows} rows"],
        )
    return tokenizer


def _image_processor(folder):
    """Path and values of the image processor's file, or `(None, {})`."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"
    if path.is_file():
        return path, read_json(path).get("image_processor")
    return None, {}


def _unsupported(config, side):
    """The settings of an image processor that this library does not support."""
    if not isinstance(config, dict):
        return ["no settings"]
    divisor = config.get("size_divisor", 32)
    length = config.get("max_text_len", TEXT_LENGTH)
    # Published files of the base size have `image_size`, the authors' name.
    wrong = [
        f"{name}={config[name]!r:.60}"
        for name in ("size", "crop_size", "image_size")
        if config.get(name) is not None and _side(config[name]) != side
    ]
    if not is_integer(divisor) or not 1 <= divisor <= side:
        wrong.append(f"size_divisor={divisor!r:.60}")
    if not is_integer(length) or length < SHORTEST_TEXT:
        wrong.append(f"max_text_len={length!r:.60}")
    kind = config.get("image_processor_type") or "BridgeTower"
    if not str(kind).startswith("BridgeTower"):
        wrong.append(f"image_processor_type={kind!r:.60}")
    for name, value in (
        *((f"do_{step}", True) for step in ("resize", "rescale")),
        ("do_center_crop", True),
        ("resample", BICUBIC),
    ):
        if config.get(name, value) != value:
            wrong.append(f"{name}={config[name]!r:.60}")
    factor = config.get("rescale_factor", 1 / 255)
    if not _is_between(factor, BELOW / 255, ABOVE / 255):
        wrong.append(f"rescale_factor={factor!r:.60}")
    for name, values in _statistics(config).items():
        least = SMALLEST_STD if name == "image_std" else -LARGEST
        if len(values) != 3 or not all(
            _is_between(value, least, LARGEST) for value in values
        ):
            wrong.append(f"{name}={config[name]!r:.60}")
    return wrong


def _is_between(value, least, most):
    # Only compared: an int of the file may be too large for floats.
    number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return number and least <= value <= most


def _statistics(config):
    """Mean and standard deviation of pixels, on the scale from 0 to 1.

    Args:
        config: dict, values of an image processor's file. As in
            transformers, a single number is that of all channels.

    Returns:
        dict of tuples, of three numbers each if the file is valid. Absent
        ones are CLIP's.
    """
    if config.get("do_normalize") is False:
        return {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}
    made = {}
    for name, clip in (("image_mean", MEAN), ("image_std", STD)):
        given = config.get(name, clip)
        several = isinstance(given, (list, tuple))
        made[name] = tuple(given) if several else (given,) * 3
    return made


def _side(size):
    """The side of a square from any form of `size`; None if not a square."""
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
        image_converter: a `BridgeTowerImageConverter`, or None. If its mode
            is not `"hf"`, transformers will make other pixels, of which a
            warning tells.
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
        # White space before it belongs to it, as here.
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
            "transformers resizes the shorter side of a picture and takes "
            "the centre, as the mode 'hf' does, not as "
            f"mode={image_converter.mode!r}. Its processor makes other pixels "
            "of pictures that are not square, and so does a preset that is "
            "opened from this folder, unless image_mode="
            f"{image_converter.mode!r} is passed to `from_preset`.",
            stacklevel=2,
        )
    size = {"shortest_edge": image_converter.image_size}
    write_json(
        folder,
        "preprocessor_config.json",
        dict(
            image_processor_type="BridgeTowerImageProcessor",
            processor_class="BridgeTowerProcessor",
            max_text_len=text_length,
            size=size,
            crop_size=size,
            size_divisor=image_converter.size_divisor,
            resample=BICUBIC,
            rescale_factor=1 / 255,
            image_mean=image_converter.mean,
            image_std=image_converter.std,
            do_resize=True,
            do_center_crop=True,
            do_rescale=True,
            do_normalize=True,
            do_pad=True,
        ),
    )
