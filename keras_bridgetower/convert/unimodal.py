"""Opens pre-trained image and text encoders, and their tokenizers.

Pre-training of a BridgeTower starts from such encoders.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import keras_hub
import numpy as np

from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import tokenizers
from keras_bridgetower.convert.architecture import built
from keras_bridgetower.convert.architecture import heads_for_width
from keras_bridgetower.convert.checkpoint import load_weights
from keras_bridgetower.convert.checkpoint import unread_keys
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.convert.rules import encoders
from keras_bridgetower.convert.rules.bridgetower import UNIMODAL_UNREAD
from keras_bridgetower.convert.rules.layouts import PADDING_ROWS
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tensors import weight_file
from keras_bridgetower.convert.tokenizers import TEXT_LENGTH
from keras_bridgetower.models.positions import copy_resized
from keras_bridgetower.models.positions import resize_positions
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.needed_files import is_keras

# Arguments of KerasHub's encoders, and the keys of a `config.json` for them.
SIZES = {
    "num_layers": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "hidden_dim": "hidden_size",
    "intermediate_dim": "intermediate_size",
}
TEXT_SIZES = SIZES | {
    "vocabulary_size": "vocab_size",
    "max_sequence_length": "max_position_embeddings",
}
IMAGE_SIZES = SIZES | {"patch_size": "patch_size", "image_size": "image_size"}


@dataclasses.dataclass(frozen=True)
class Model:
    """The way to read the encoder of one model type of transformers.

    Args:
        cls: class of KerasHub's encoder.
        rules: function of a prefix and a number of layers.
        prefix: str, which the names of tensors may have.
        before: int, rows of the table of positions that come before those of
            tokens or patches.
        keys: names of the tensors of the words or the patch kernel, of the
            first feed-forward kernel and of the positions.
        epsilon: float, the only epsilon of KerasHub's norms; None if a
            configuration gives it.
        default: float, the epsilon of transformers if a file names none.
    """

    cls: type
    rules: Callable
    prefix: str
    before: int
    keys: tuple
    epsilon: float | None = None
    default: float = 1e-12


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
        return _read_openai_clip(path, image_size)
    if _is_transformers(path):
        return _read_folder(path, IMAGE_MODELS, _read_image, image_size)
    encoder = _from_keras_hub(source, path)
    encoder = getattr(encoder, "vision_encoder", encoder)
    if image_size in (None, encoder.image_shape[0]):
        return encoder
    image_shape = (image_size, image_size, 3)
    config = {**encoder.get_config(), "image_shape": image_shape}
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
        return _read_folder(path, TEXT_MODELS, _read_text)
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
    found = tokenizers.read(path, kind, sequence_length)
    if found is None:
        raise ConversionError(
            f"A folder of {kind} must hold the files of its tokenizer, such as "
            "tokenizer.json. Fetch them.",
            path,
        )
    return found


def _is_transformers(path):
    return (path / "config.json").is_file() and not is_keras(path)


def _from_keras_hub(source, path):
    # KerasHub would take a relative path for the name of a preset.
    folder = (path / "config.json").is_file()
    return keras_hub.models.Backbone.from_preset(
        str(path.resolve() if folder else source)
    )


def _read_folder(folder, models, read, image_size=None):
    """Read the encoder in a folder; `models` has the allowed model types."""
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    kind = configurations.require_type(config, path, models)
    tensors = open_tensors(weight_file(folder))
    if not configurations.model_names(config):
        kind = configurations.model_type(config, tensors.shapes)
    if kind == "clip":
        config = configurations.nested_values(config, "vision_config") or config
    model = models[kind]
    if model.epsilon is not None:
        configurations.require_epsilon(
            config, path, model.epsilon, model.default
        )
    names = IMAGE_SIZES if read is _read_image else TEXT_SIZES
    values = configurations.sizes(config, path, kind, *names.values())
    sizes = dict(zip(names, values, strict=True))
    if sizes["num_layers"] > len(tensors.shapes):
        # Reject early: rules for an absurd number of layers would take long.
        raise ConversionError(
            "A configuration must have the sizes of its weights.",
            path,
            [
                f"num_hidden_layers={sizes['num_layers']}, "
                f"{len(tensors.shapes)} tensors in the weights"
            ],
        )
    tensors = tensors.without_prefix(f"{model.prefix}.")
    return read(model, sizes, config, tensors, path, image_size)


def _require_activation(config, path, allowed):
    """Return `hidden_act`, which is the first of `allowed` by default."""
    found = config.get("hidden_act", allowed[0])
    if found not in allowed:
        raise ConversionError(
            f"The encoder must use one of {', '.join(allowed)}.",
            path,
            [f"hidden_act={found!r}"],
        )
    return found


def _read_text(model, sizes, config, tensors, path, image_size):
    _require_activation(config, path, ["gelu"])
    width, positions = sizes["hidden_dim"], sizes["max_sequence_length"]
    rows, dense, table = model.keys
    expected = {
        rows: (sizes["vocabulary_size"], width),
        dense: (sizes["intermediate_dim"], width),
        table: (positions, width),
    }
    sizes["max_sequence_length"] -= model.before
    rules = model.rules("", sizes["num_layers"])
    return _build(model.cls, sizes, rules, expected, tensors, path)


def _read_image(model, sizes, config, tensors, path, image_size):
    side = sizes.pop("image_size")
    if model.prefix == "vision_model":
        sizes["intermediate_activation"] = _require_activation(
            config, path, ["quick_gelu", "gelu"]
        )
    else:
        epsilon = configurations.epsilon(config, path, model.default)
        sizes["layer_norm_epsilon"] = epsilon
    rules = model.rules("", sizes["num_layers"])
    return _build_image_encoder(
        model, sizes, rules, (image_size, side), tensors, path
    )


def _read_openai_clip(path, image_size=None):
    tensors = open_tensors(path)
    try:
        (width, *_, patch), (hidden, *_), (positions, *_) = (
            tensors.shapes[key] for key in OPENAI.keys
        )
    except (KeyError, ValueError) as error:
        raise ConversionError(
            "The file must be a state dict of OpenAI's CLIP with a vision "
            "transformer.",
            path,
            [f"without {error}"],
        ) from None
    layers = sum(
        key.startswith("visual.") and key.endswith("attn.in_proj_weight")
        for key in tensors.shapes
    )
    sizes = dict(
        patch_size=patch,
        hidden_dim=width,
        num_layers=layers,
        num_heads=heads_for_width(width),
        intermediate_dim=hidden,
    )
    rules = OPENAI.rules("visual.", layers) + encoders.final_norm("visual.")
    side = math.isqrt(max(positions - 1, 0)) * patch
    return _build_image_encoder(
        OPENAI, sizes, rules, (image_size, side), tensors, path
    )


def _build_image_encoder(model, sizes, rules, sides, tensors, path):
    """Build an image encoder and resize its positions if needed.

    Args:
        model: `Model`.
        sizes: dict of its constructor arguments, without the image size.
        rules: list of `Rule`.
        sides: the image size that the caller wants (or None), and that of the
            weights.
        tensors: `Tensors`.
        path: path of the configuration, for errors.
    """
    width, patch = sizes["hidden_dim"], sizes["patch_size"]
    kernel, dense, positions = model.keys
    expected = {
        kernel: (width, 3, patch, patch),
        dense: (sizes["intermediate_dim"], width),
    }
    side = sides[0] or sides[1]
    if side % patch:
        raise ConversionError(
            "`image_size` must be a multiple of the patch size.",
            path,
            [f"image_size={side}, patch_size={patch}"],
        )
    count = (side // patch) ** 2 + model.before
    shape = tensors.shapes.get(positions)
    if shape is not None and len(shape) > 1:
        resized = (*shape[:-2], count, shape[-1])
        if sides[0] is None:
            expected[positions] = resized
        elif shape != resized:
            read = tensors.read
            tensors = tensors.with_value(
                positions,
                resized,
                lambda: resize_positions(read(positions), count),
            )
    if model.cls is keras_hub.models.ViTBackbone:
        sizes["mlp_dim"] = sizes.pop("intermediate_dim")
    sizes["image_shape"] = (side, side, 3)
    return _build(model.cls, sizes, rules, expected, tensors, path)


def _build(cls, sizes, rules, expected, tensors, path):
    """Build an encoder of the given sizes and load its weights.

    `expected` maps the tensors that determine the sizes to their shapes.
    """
    unread_keys(rules, tensors, UNIMODAL_UNREAD)
    wrong = [
        f"{key} has shape {tensors.shapes[key]}, not {shape}"
        for key, shape in expected.items()
        if tensors.shapes[key] != shape
    ]
    if wrong:
        # Reject before memory is allocated for sizes that are only claimed.
        raise ConversionError(
            "A configuration must have the sizes of its weights.", path, wrong
        )
    encoder = built(functools.partial(cls, **sizes), path)
    variables = variables_by_path(encoder, encoder=encoder)
    ruled = {path for rule in rules for path in rule.variables}
    for name in set(variables) - ruled:
        if name.startswith("pooled_dense"):
            # KerasHub's BERT has a pooler, which the towers do not use.
            pooler = variables.pop(name)
            pooler.assign(np.zeros(pooler.shape))
    load_weights(rules, tensors, variables)
    return encoder


_TEXT_KEYS = (
    "embeddings.word_embeddings.weight",
    "encoder.layer.0.intermediate.dense.weight",
    "embeddings.position_embeddings.weight",
)
_IMAGE_KEYS = (
    "embeddings.patch_embeddings.projection.weight",
    "encoder.layer.0.intermediate.dense.weight",
    "embeddings.position_embeddings",
)
TEXT_MODELS = {
    "roberta": Model(
        keras_hub.models.RobertaBackbone,
        encoders.roberta,
        "roberta",
        PADDING_ROWS,
        _TEXT_KEYS,
        epsilon=1e-5,
    ),
    "bert": Model(
        keras_hub.models.BertBackbone,
        encoders.bert,
        "bert",
        0,
        _TEXT_KEYS,
        epsilon=1e-12,
    ),
}
CLIP = Model(
    keras_hub.models.CLIPVisionEncoder,
    encoders.clip,
    "vision_model",
    1,
    (
        "embeddings.patch_embedding.weight",
        "encoder.layers.0.mlp.fc1.weight",
        "embeddings.position_embedding.weight",
    ),
    epsilon=1e-5,
    default=1e-5,
)
OPENAI = dataclasses.replace(
    CLIP,
    rules=encoders.openai_clip,
    keys=(
        "visual.conv1.weight",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
        "visual.positional_embedding",
    ),
)
IMAGE_MODELS = {
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "vit": Model(
        keras_hub.models.ViTBackbone, encoders.vit, "vit", 1, _IMAGE_KEYS
    ),
    "deit": Model(
        keras_hub.models.DeiTBackbone, encoders.deit, "deit", 2, _IMAGE_KEYS
    ),
}
