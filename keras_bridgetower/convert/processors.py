"""Reads and writes the files of a BridgeTower's tokenizer and pictures."""

import pathlib
import warnings

from keras_bridgetower.convert import image_processors
from keras_bridgetower.convert import tokenizers
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting
from keras_bridgetower.presets.registry import write_json


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
    path, saved = image_processors.saved_image_processor(folder)
    if path is None:
        converter = BridgeTowerImageConverter(side, mode=mode)
    else:
        converter = image_processors.read_bridgetower(path, saved, side)
    with converting("`max_text_len` must be a number", path or folder):
        usual = saved.get("max_text_len", tokenizers.TEXT_LENGTH)
        length = min(sequence_length or usual, architecture.positions)
    tokenizer = tokenizers.read(folder, architecture.text_encoder, length)
    rows = architecture.vocabulary_size
    if tokenizer is not None and tokenizer.vocabulary_size() > rows:
        raise ConversionError(
            "A tokenizer must not have more tokens than the model has rows.",
            folder,
            [f"{tokenizer.vocabulary_size()} tokens, {rows} rows"],
        )
    return tokenizer, converter


def write(folder, tokenizer, image_converter):
    """Write the files that transformers' `BridgeTowerProcessor` reads.

    Args:
        folder: path of a folder.
        tokenizer: a `BridgeTowerTokenizer`, or None.
        image_converter: a `BridgeTowerImageConverter`, or None. A warning is
            given if transformers computes other pixels.
    """
    folder = pathlib.Path(folder)
    length = tokenizers.TEXT_LENGTH
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
    values = dict(
        tokenizer_class="RobertaTokenizer",
        processor_class="BridgeTowerProcessor",
        add_prefix_space=False,
        model_max_length=tokenizer.sequence_length,
        mask_token=mask,
    )
    write_json(folder, "tokenizer_config.json", values)


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
    values = dict(
        image_processors.BRIDGETOWER,
        image_processor_type="BridgeTowerImageProcessor",
        processor_class="BridgeTowerProcessor",
        max_text_len=text_length,
        size=size,
        crop_size=size,
        size_divisor=image_converter.size_divisor,
        image_mean=image_converter.mean,
        image_std=image_converter.std,
        do_normalize=True,
        do_pad=True,
    )
    write_json(folder, "preprocessor_config.json", values)
