"""Opens pre-trained image and text encoders, and their tokenizers.

Pre-training of a BridgeTower starts from such encoders.
"""

import pathlib

import keras_hub

from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert.encoder_files import IMAGE_MODELS
from keras_bridgetower.convert.encoder_files import TEXT_MODELS
from keras_bridgetower.convert.encoder_files import read_folder
from keras_bridgetower.convert.encoder_files import read_openai_clip
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tokenizers import TEXT_LENGTH
from keras_bridgetower.models.positions import copy_resized
from keras_bridgetower.presets.needed_files import is_keras


def image_encoder(source, image_size=None):
    """Open a pre-trained image encoder.

    Args:
        source: a KerasHub preset of CLIP, ViT or DeiT; the path of a
            `transformers` folder with one of them; or the path of a state
            dict of OpenAI's CLIP (`.pt`).
        image_size: int, side of the images in pixels. Learned positions are
            resized to fit, see `resize_positions`. By default the size with
            which the encoder was saved.

    Returns:
        A KerasHub encoder, for `BridgeTowerBackbone`.

    Raises:
        ConversionError: damaged files or another kind of model.

    Example:

    ```python
    image_encoder("clip_vit_base_patch16", image_size=288)
    ```
    """
    path = pathlib.Path(source)
    if path.is_file():
        return read_openai_clip(path, image_size)
    if _is_transformers(path):
        return read_folder(path, IMAGE_MODELS, image_size)
    encoder = _from_keras_hub(source, path)
    encoder = getattr(encoder, "vision_encoder", encoder)
    if image_size in (None, encoder.image_shape[0]):
        return encoder
    config = {
        **encoder.get_config(),
        "image_shape": (image_size, image_size, 3),
    }
    return copy_resized(encoder, type(encoder).from_config(config))


def text_encoder(source):
    """Open a pre-trained text encoder.

    Args:
        source: a KerasHub preset of RoBERTa or BERT, or the path of a
            `transformers` folder with one of them.

    Returns:
        A KerasHub encoder, for `BridgeTowerBackbone`.

    Raises:
        ConversionError: damaged files or another kind of model.

    Example:

    ```python
    text_encoder("roberta_base_en")
    ```
    """
    path = pathlib.Path(source)
    if _is_transformers(path):
        return read_folder(path, TEXT_MODELS)
    return _from_keras_hub(source, path)


def tokenizer(source, sequence_length=TEXT_LENGTH):
    """Open the tokenizer of a text encoder.

    Args:
        source: path of a `transformers` folder with RoBERTa or BERT.
        sequence_length: int, number of tokens in a text.

    Returns:
        A `BridgeTowerTokenizer` or a `BridgeTowerBertTokenizer`.

    Raises:
        ConversionError: files are damaged or missing, or hold another model.

    Example:

    ```python
    tokenizer("bert-base-uncased", sequence_length=40)
    ```
    """
    path = pathlib.Path(source)
    if not _is_transformers(path):
        raise ConversionError(
            "A tokenizer is read from a `transformers` folder.", path
        )
    check_links(path)
    file = path / "config.json"
    kind = configurations.require_type(
        read_json(file), file, list(tokenizers.READERS)
    )
    made = tokenizers.read(path, kind, sequence_length)
    if made is None:
        raise ConversionError(
            f"A folder of {kind} must hold the files of its tokenizer, such as "
            "tokenizer.json. Fetch them.",
            path,
        )
    return made


def _is_transformers(path):
    """Whether a folder holds a model of transformers and not of KerasHub."""
    return (path / "config.json").is_file() and not is_keras(path)


def _from_keras_hub(source, path):
    # The full path, since KerasHub would take a relative one for the name of
    # a preset.
    folder = (path / "config.json").is_file()
    return keras_hub.models.Backbone.from_preset(
        str(path.resolve() if folder else source)
    )
