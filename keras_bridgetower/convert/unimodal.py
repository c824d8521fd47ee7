"""Opens pre-trained image and text encoders, and their tokenizers.

Pre-training of a BridgeTower starts from such encoders.
"""

import functools
import math
import pathlib
from typing import NamedTuple

import keras_hub.models as hub
import numpy as np

from keras_bridgetower import files as local_files
from keras_bridgetower.backend.keras_private.variables import shapes_only
from keras_bridgetower.checks import is_integer
from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert.checkpoint import load_weights
from keras_bridgetower.convert.checkpoint import unread_keys
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.convert.image_processors import (
    image_converter as image_converter,
)
from keras_bridgetower.convert.image_processors import read_side
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tensors import weight_file
from keras_bridgetower.encoders.classified import ClassifiedEncoder
from keras_bridgetower.encoders.registry import entries
from keras_bridgetower.encoders.registry import files_by_type
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.models.positions import check_side
from keras_bridgetower.models.positions import copy_resized
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.presets import hub as hub_files
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting
from keras_bridgetower.presets.needed_files import is_keras
from keras_bridgetower.presets.safe_files import LARGEST_ASSET

# Keys of a `config.json`, and the sizes of the weights that must agree.
CLAIMS = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "vocab_size": "vocabulary_size",
    "max_position_embeddings": "positions",
    "type_vocab_size": "num_segments",
    "embedding_size": "embedding_dim",
    "patch_size": "patch_size",
    "image_size": "image_size",
    "num_register_tokens": "num_register_tokens",
}
# Tensors that hold a constant range of numbers, or count training steps.
CONSTANT = r"(.*\.)?(position_ids|num_batches_tracked)"
PARTS = ("tokenizer", "image_converter")
MODULES = "modules.json"
# Poolings in the configurations of `sentence-transformers`, and ours.
SUMMARIES = {"mean_tokens": "mean", "cls_token": "start", "lasttoken": "end"}
# Newer configurations have one value instead of a key for each pooling.
_SHORT = {"mean": "mean_tokens", "cls": "cls_token"}
_MODE = "pooling_mode"


class Encoders(NamedTuple):
    """Two encoders, their tokenizer and their image converter.

    Args:
        image_encoder, text_encoder: KerasHub encoders.
        tokenizer: the tokenizer of the text encoder.
        image_converter: a `BridgeTowerImageConverter` with the normalization
            of the image encoder.
        text_summary: str, the pooling of a sentence encoder, or None.
    """

    image_encoder: object
    text_encoder: object
    tokenizer: object
    image_converter: object
    text_summary: str | None


def open_encoders(
    image_source,
    text_source,
    image_size=None,
    sequence_length=None,
    summary=None,
    parts=PARTS,
    with_classifier=False,
):
    """Open two encoders, the tokenizer and the image converter, as `Encoders`.

    Args:
        image_source, image_size, with_classifier: as `image_encoder`.
        text_source: as `text_encoder`.
        sequence_length: as `tokenizer`.
        summary: str, `text_summary` of the backbone. By default the pooling
            of a folder of `sentence-transformers`.
        parts: tuple of str, the opened ones of `PARTS`; others are None.
    """
    # Errors about these come before weights are read.
    words, make_converter = None, lambda side: None
    if "tokenizer" in parts:
        words = tokenizer(text_source, sequence_length)
    if "image_converter" in parts:
        make_converter = _converter_for(image_source)
    image = image_encoder(image_source, image_size, with_classifier)
    text = text_encoder(text_source)
    converter = make_converter(image.inputs[0].shape[1])
    _, path = _fetched(text_source)
    if summary is None and (path / MODULES).is_file():
        summary = text_summary(path)
    return Encoders(image, text, words, converter, summary)


def image_encoder(source, image_size=None, with_classifier=False):
    """Open a pre-trained image encoder.

    Args:
        source: a KerasHub preset, the path of a `transformers` folder or a
            handle `"hf://user/model"` of one, for one of the encoders in
            docs/guides/encoders.md; or the path of a state dict of OpenAI's
            CLIP or of EfficientNet-Lite in PyTorch (`.pt`, `.pth`). Lite
            reads 224 pixels by default, with mean 127 and deviation 128.
        image_size: int, side of the images in pixels. Learned positions are
            resized to fit, see `resize_positions`. By default the size with
            which the encoder was saved.
        with_classifier: bool, whether to open the linear classifier that was
            trained on top of an EfficientNet, ResNet or Swin. The highest
            state is then the probabilities of its classes at each place, see
            `ClassifiedEncoder`. Not for a KerasHub preset.

    Returns:
        A KerasHub encoder, or a `ClassifiedEncoder`, for
        `BridgeTowerBackbone`.

    Raises:
        ConversionError: damaged files, another kind of model, or no
            classifier.
        ValueError: the encoder cannot have images of this size. No weights
            were read then.

    Example:

    ```python
    image_encoder("clip_vit_base_patch16", image_size=288)
    ```
    """
    source, path = _fetched(source)
    if path.is_file():
        encoder = _read_state_dict(path, image_size)
    elif _is_transformers(path):
        encoder = _read_folder(path, "image", image_size)
    elif with_classifier:
        raise _no_classifier(path)
    else:
        encoder = _from_keras_hub(source, path, "image", image_size)
    if with_classifier:
        encoder = _with_classifier(encoder, path)
    if image_size in (None, encoder.inputs[0].shape[1]):
        return encoder
    entry = get_entry(encoder)
    shape = entry.sized((image_size, image_size, 3))
    resized = type(encoder).from_config(encoder.get_config() | shape)
    return copy_resized(encoder, resized, entry.antialias(encoder))


def text_encoder(source):
    """Open a pre-trained text encoder.

    Args:
        source: a KerasHub preset, or the path of a `transformers` folder or a
            handle `"hf://user/model"` of one, for one of the encoders in
            docs/guides/encoders.md; or a folder of `sentence-transformers`,
            whose pooling `text_summary` returns.

    Returns:
        A KerasHub encoder, for `BridgeTowerBackbone`.

    Raises:
        ConversionError: damaged files or another kind of model.

    Example:

    ```python
    text_encoder("roberta_base_en")
    ```
    """
    source, path = _fetched(source)
    if _is_transformers(path):
        return _read_folder(path, "text")
    return _from_keras_hub(source, path, "text")


def tokenizer(source, sequence_length=None):
    """Open the tokenizer of a text encoder.

    Args:
        source: as in `text_encoder`.
        sequence_length: int, number of tokens in a text. By default 50, or
            fewer if the files say so. SigLIP and SigLIP 2 read only texts of
            all positions and the added start token.

    Returns:
        A `BridgeTowerTokenizer`, a `BridgeTowerBertTokenizer` or a
        `BridgeTowerJsonTokenizer`.

    Raises:
        ConversionError: files are damaged or missing, are of another model, or
            the tokenizer is not the encoder's.
        ValueError: `sequence_length` is more than the encoder reads.

    Example:

    ```python
    tokenizer("bert-base-uncased", sequence_length=40)
    ```
    """
    source, path = _fetched(source)
    if (path / "config.json").is_file() and is_keras(path) or not path.exists():
        preset, encoder = _described(source, path, "text")
        return tokenizers.open_preset(preset, encoder, sequence_length)
    return tokenizers.open_folder(path, sequence_length)


def text_summary(source):
    """Return the pooling with which a sentence encoder was trained.

    Pass it to the backbone beside `text_encoder(source)`, and embeddings are
    computed as published. Contrastive embeddings are normalized anyway, so a
    module that normalizes changes nothing.

    Args:
        source: path of a folder of `sentence-transformers`, such as
            all-MiniLM-L6-v2 or multilingual-e5-base.

    Returns:
        str: `"mean"`, `"start"` or `"end"`, a `text_summary` of
        `BridgeTowerBackbone`.

    Raises:
        ConversionError: damaged or missing files, another pooling, or modules
            after it that this library does not have.

    Example:

    ```python
    text_summary("all-MiniLM-L6-v2")  # "mean"
    ```
    """
    folder = pathlib.Path(source)
    path = _pooling_file(folder)
    config = read_json(path)
    modes = [
        key.removeprefix(f"{_MODE}_")
        for key, value in config.items()
        if key.startswith(f"{_MODE}_") and value is True
    ]
    if _MODE in config:
        modes.append(_SHORT.get(str(config[_MODE]), str(config[_MODE])))
    if len(modes) != 1 or modes[0] not in SUMMARIES:
        raise ConversionError(
            "The pooling of a sentence encoder must be one of "
            f"{list(SUMMARIES)}. Choose a `text_summary` of your own.",
            path,
            modes,
        )
    return SUMMARIES[modes[0]]


def _converter_for(source):
    """Return a function from an image size to the converter of an encoder."""
    source, path = _fetched(source)
    if _is_transformers(path):
        # Raises if it is of another kind, or if there is no converter.
        configurations.read_encoder(path, "image")
        image_converter(path)
        return functools.partial(image_converter, path)
    # Other files do not have these values.
    if path.is_file():
        cls, files = _find_files(open_tensors(path))
        pixels = files.pixels or entries("image")[cls].pixels
    else:
        _, encoder = _described(source, path, "image")
        pixels = get_entry(encoder).pixels
    if not pixels:
        raise ConversionError(
            "The `pixels` of an encoder must be in its registry entry. Pass "
            "`preprocessor` with an image converter of its mean and std.",
            source,
        )
    return functools.partial(BridgeTowerImageConverter, **pixels)


def _fetched(source):
    """Return a source, downloaded if it is a handle, as str and as path."""
    source = str(source)
    if source.startswith("hf://"):
        source = hub_files.fetch(source, source)
    return source, pathlib.Path(source)


def _is_transformers(path):
    return (path / "config.json").is_file() and not is_keras(path)


def _from_keras_hub(source, path, side, image_size=None):
    """Read the encoder of a KerasHub preset, and check it before its weights.

    Args: as `_described` and `image_encoder`.
    """
    preset, encoder = _described(source, path, side)
    _check_size(encoder, image_size)
    return _encoder_in(hub.Backbone.from_preset(preset), side)


def _encoder_in(backbone, side):
    part = {"image": "vision_encoder", "text": "text_encoder"}[side]
    return getattr(backbone, part, backbone)


def _described(source, path, side):
    """Return a KerasHub preset's name and its encoder, without weights.

    Args:
        source, path: as `_fetched` returns them.
        side: `"image"` or `"text"`.
    """
    # KerasHub would read a relative path as the name of a preset.
    folder = (path / "config.json").is_file()
    preset = str(path.resolve() if folder else source)
    with shapes_only():
        backbone = hub.Backbone.from_preset(preset, load_weights=False)
    encoder = _encoder_in(backbone, side)
    if get_entry(encoder).side != side:
        raise ConversionError(
            "`image_encoder` opens presets of image encoders, `text_encoder` "
            "those of text encoders.",
            preset,
            [type(encoder).__name__],
        )
    return preset, encoder


def _check_size(encoder, image_size):
    """Raise if a size is given and the encoder cannot read such images."""
    if image_size not in (None, encoder.inputs[0].shape[1]):
        check_side("image_size", image_size, encoder)


def _read_folder(folder, side, image_size=None):
    """Read the encoder of a side from a `transformers` folder."""
    kind, config = configurations.read_encoder(folder, side)
    path = folder / "config.json"
    tensors = open_tensors(weight_file(folder))
    cls, files = files_by_type(side)[kind]
    config = dict(config)
    for key in config.keys() & {"image_size", "patch_size"}:
        config[key] = read_side(config[key])[0] or config[key]
    if not files.sizes and is_integer(image_size):
        # A pyramid may be able to have other sizes than in its files.
        config["image_size"] = image_size
    if files.prefix:
        tensors = tensors.without_prefix(f"{files.prefix}.")
    sizes = _sizes(files, tensors, config)
    given = config.get("image_size")
    if "image_size" in sizes and is_integer(given):
        # A convolution ignores a border: 384 pixels have 27 patches of 14.
        if given - given % sizes["patch_size"] == sizes["image_size"]:
            sizes["image_size"] = given
    wrong = [
        f"{key}={config[key]!r:.50}, but {sizes[name]} in the weights"
        for key, name in (CLAIMS | files.claims).items()
        if name in sizes and config.get(key, sizes[name]) != sizes[name]
    ]
    arguments = {}
    for key, value in files.values.items():
        given = config.get(key, value.default)
        if value.allowed and given not in value.allowed:
            wrong.append(f"{key}={given!r:.50}, not one of {value.allowed}")
        if value.argument:
            arguments[value.argument] = given
    if wrong:
        raise ConversionError(
            f"A configuration must belong to its weights, and {cls.__name__} "
            "of KerasHub must be able to compute its values.",
            path,
            wrong,
        )
    arguments |= _arguments(files, config, sizes, path)
    return _build(cls, files, tensors, sizes, arguments, image_size)


def _read_state_dict(path, image_size):
    """Read an image encoder from a state dict, by the names of its tensors."""
    tensors = open_tensors(path)
    cls, files = _find_files(tensors)
    sizes = _sizes(files, tensors, {})
    arguments = _arguments(files, {}, sizes, path)
    return _build(cls, files, tensors, sizes, arguments, image_size)


def _find_files(tensors):
    """Return the class and the `Files` whose mark is in a state dict."""
    known = {
        files.mark: (cls, files)
        for cls, entry in entries("image").items()
        for files in entry.files
        if files.mark
    }
    for mark in known.keys() & tensors.shapes.keys():
        return known[mark]
    raise ConversionError(
        f"A state dict must have one of {sorted(known)}. Is it of another "
        "model?",
        tensors.path,
        sorted(tensors.shapes)[:5],
    )


def _sizes(files, tensors, config):
    """Return the sizes of an encoder, from the shapes of its tensors."""
    layers = files.layers
    if isinstance(layers, str):
        layers = {"num_layers": layers}
    found = architecture.sizes(tensors, files.sizes, layers)
    with converting("Tensors must be those of a known encoder", tensors.path):
        found |= files.measure(tensors.shapes)
        rows = found.get("positions", 0) - files.before(config)
    if {"patch_size", "positions"} <= found.keys():
        found["image_size"] = math.isqrt(max(rows, 0)) * found["patch_size"]
    elif "positions" in found:
        found["max_sequence_length"] = rows
    return found


def _arguments(files, config, sizes, path):
    problem = "A configuration must be of an encoder that KerasHub can compute"
    with converting(problem, path):
        return files.arguments(config, sizes)


def _build(cls, files, tensors, sizes, arguments, image_size=None):
    """Build an encoder and load its weights.

    Args:
        cls, files, tensors: class of the encoder, `Files` and `Tensors`.
        sizes: dict, as `_sizes` returns it.
        arguments: dict of further arguments of the encoder; None removes one.
        image_size: as `image_encoder`.
    """
    values = sizes | arguments
    rules = files.rules(values)
    unread_keys(rules, tensors, (*files.unread, CONSTANT))
    values.pop("positions", None)
    side = values.pop("image_size", None)
    if side is not None:
        values = {"image_shape": (side, side, 3), **values}
    values = {k: v for k, v in values.items() if v is not None and k[0] != "_"}
    encoder = architecture.built(functools.partial(cls, **values), tensors)
    _check_size(encoder, image_size)
    variables = variables_by_path(encoder, encoder=encoder)
    for path in list(variables):
        if path.split("/")[0] in get_entry(encoder).unused:
            unused = variables.pop(path)
            unused.assign(np.zeros(unused.shape))
    load_weights(rules, tensors, variables)
    return encoder


def _with_classifier(encoder, path):
    """Return a `ClassifiedEncoder` of an encoder and the classifier in a file.

    Args:
        encoder: image encoder.
        path: `pathlib.Path` of the `transformers` folder or the state dict
            that it was read from.
    """
    tensors = open_tensors(path if path.is_file() else weight_file(path))
    found = []
    for key in filter(None, (f.classifier for f in get_entry(encoder).files)):
        names = f"{key}.weight", f"{key}.bias"
        weight, bias = (tensors.shapes.get(name, ()) for name in names)
        if len(bias) == 1 and weight == (*bias, encoder.output.shape[-1]):
            model = ClassifiedEncoder(encoder, *bias)
            variables = variables_by_path(model.get_layer("classes"))
            load_weights(dense("classes", key), tensors, variables)
            return model
        found += [f"{n}: {tensors.shapes.get(n, 'missing')}" for n in names]
    raise _no_classifier(path, found)


def _no_classifier(path, found=()):
    return ConversionError(
        "`with_classifier=True` needs a `transformers` folder or a state dict "
        "of EfficientNet, ResNet or Swin with a linear classifier.",
        path,
        found,
    )


def _pooling_file(folder):
    """Return the path of the configuration of the pooling."""
    path = folder / MODULES
    problem = f"A folder of sentence-transformers needs a readable {MODULES}"
    with converting(problem, path):
        modules = local_files.read_json(path, LARGEST_ASSET)
        kinds = [module["type"].rpartition(".")[2] for module in modules]
        config = [f"{module['path']}/config.json" for module in modules][1]
        away = local_files.Below(folder).leads_out(config)
    wanted = ["Transformer", "Pooling"]
    if away or kinds not in (wanted, [*wanted, "Normalize"]):
        raise ConversionError(
            "A sentence encoder must have the modules Transformer, Pooling "
            "and, optionally, Normalize, inside its folder.",
            path,
            [*kinds, config],
        )
    return folder / config
