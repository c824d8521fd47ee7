"""Tokenizer and image processor files of `transformers`, both ways."""

import pathlib

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

BICUBIC = 3
# Numbers that went through float32 and text are still the same.
BELOW, ABOVE = 1 - 1e-6, 1 + 1e-6
# Start, one token and end.
SHORTEST = 3


def read(folder, architecture, mode="hf", sequence_length=None):
    """Tokenizer and image converter of a folder.

    Args:
        folder: path of a folder with tokenizer and image processor files.
        architecture: `Architecture` that they are to fit.
        mode: str, mode of the converter where no file says it.
        sequence_length: int, tokens in a text; by default the `max_text_len`
            of the image processor's file, where the published ones have it.

    Returns:
        `(tokenizer, image_converter)`, the first None where the folder has no
        files of it.

    Raises:
        ConversionError: damaged files, or settings that cannot be kept.
    """
    folder = pathlib.Path(folder)
    path, config = _image_processor(folder)
    side = architecture.image_size
    wrong = [] if path is None else _unsupported(config, side)
    if wrong:
        raise ConversionError(
            "An image processor must be transformers' for BridgeTower, with "
            f"the model's image size {side} and CLIP's statistics.",
            path,
            wrong,
        )
    length = sequence_length or config.get("max_text_len", TEXT_LENGTH)
    length = min(length, architecture.positions)
    if path is None:
        converter = BridgeTowerImageConverter(side, mode=mode)
    else:
        converter = BridgeTowerImageConverter(
            side, mode="hf", size_divisor=config.get("size_divisor", 32)
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
    """The file of an image processor and its values, or None and none."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"
    if path.is_file():
        return path, read_json(path).get("image_processor")
    return None, {}


def _unsupported(config, side):
    """What of an image processor's settings cannot be kept."""
    if not isinstance(config, dict):
        return ["no settings"]
    divisor = config.get("size_divisor", 32)
    length = config.get("max_text_len", TEXT_LENGTH)
    # The published files of the base size say `image_size`, as the authors.
    wrong = [
        f"{name}={config[name]!r:.60}"
        for name in ("size", "crop_size", "image_size")
        if config.get(name) is not None and _side(config[name]) != side
    ]
    if type(divisor) is not int or not 1 <= divisor <= side:
        wrong.append(f"size_divisor={divisor!r:.60}")
    if type(length) is not int or length < SHORTEST:
        wrong.append(f"max_text_len={length!r:.60}")
    kind = config.get("image_processor_type") or "BridgeTower"
    if not str(kind).startswith("BridgeTower"):
        wrong.append(f"image_processor_type={kind!r:.60}")
    for name, value in (
        *((f"do_{step}", True) for step in ("resize", "rescale", "normalize")),
        ("do_center_crop", True),
        ("resample", BICUBIC),
    ):
        if config.get(name, value) != value:
            wrong.append(f"{name}={config[name]!r:.60}")
    for name, value in (
        ("rescale_factor", [1 / 255]),
        ("image_mean", MEAN),
        ("image_std", STD),
    ):
        given = config.get(name, value)
        given = list(given) if isinstance(given, (list, tuple)) else [given]
        if len(given) != len(value) or not all(
            # Compared, as a whole number may be too large for arithmetic.
            isinstance(a, (int, float)) and b * BELOW <= a <= b * ABOVE
            for a, b in zip(given, value, strict=True)
        ):
            wrong.append(f"{name}={config[name]!r:.60}")
    return wrong


def _side(size):
    """The side of a square, in any of the forms of a size."""
    if isinstance(size, dict):
        names = {"shortest_edge", "height", "width"} & set(size)
        sides = {repr(size[name]) for name in names}
        return size[names.pop()] if len(sides) == 1 else None
    return size


def write(folder, tokenizer, image_converter):
    """Write the files that transformers' `BridgeTowerProcessor` reads.

    Args:
        folder: path of a folder.
        tokenizer: a `BridgeTowerTokenizer`.
        image_converter: a `BridgeTowerImageConverter`. In another mode than
            `"hf"` transformers will see other pixels at the borders.
    """
    folder = pathlib.Path(folder)
    tokenizer.save_assets(folder)
    (folder / "vocabulary.json").rename(folder / "vocab.json")
    special = dict(
        bos_token="<s>",
        cls_token="<s>",
        eos_token="</s>",
        sep_token="</s>",
        pad_token="<pad>",
        unk_token="<unk>",
        mask_token="<mask>",
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
    size = {"shortest_edge": image_converter.image_size}
    write_json(
        folder,
        "preprocessor_config.json",
        dict(
            image_processor_type="BridgeTowerImageProcessor",
            processor_class="BridgeTowerProcessor",
            max_text_len=tokenizer.sequence_length,
            size=size,
            crop_size=size,
            size_divisor=image_converter.size_divisor,
            resample=BICUBIC,
            rescale_factor=1 / 255,
            image_mean=MEAN,
            image_std=STD,
            do_resize=True,
            do_center_crop=True,
            do_rescale=True,
            do_normalize=True,
            do_pad=True,
        ),
    )
