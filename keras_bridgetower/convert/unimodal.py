"""Opens pre-trained image and text encoders, and their tokenizers.

Pre-training of a BridgeTower starts from such encoders.
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import keras_hub.models as hub
import numpy as np

from keras_bridgetower.convert import architecture
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import tokenizers
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
from keras_bridgetower.models.positions import patch_size
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.needed_files import is_keras

# Keys of a `config.json`, and the sizes of the weights that they give too.
CLAIMS = {
    "num_hidden_layers": "num_layers",
    "hidden_size": "hidden_dim",
    "intermediate_size": "intermediate_dim",
    "vocab_size": "vocabulary_size",
    "max_position_embeddings": "positions",
    "patch_size": "patch_size",
    "image_size": "image_size",
}


@dataclasses.dataclass(frozen=True)
class Model:
    """The way to read the encoder of one model type of transformers.

    Args:
        cls: class of KerasHub's encoder.
        rules: function of a prefix and a number of layers.
        prefix: str, which the names of tensors may have.
        sizes: dict from names of tensors to the names of the sizes of their
            axes: arguments of `cls`, and `positions`.
        before: int, rows of the table of positions that come before those of
            tokens or patches.
        epsilon: float, the only epsilon of KerasHub's norms; None if a
            configuration gives it.
        default: float, the epsilon of transformers if a file names none.
        activations: tuple of str, those of `cls`; that of transformers first.
        layers: str, the start of the names of tensors of layers.
    """

    cls: type
    rules: Callable
    prefix: str
    sizes: dict
    before: int
    epsilon: float | None = None
    default: float = 1e-12
    activations: tuple = ("gelu",)
    layers: str = "encoder.layer."


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
        tensors = open_tensors(path)
        sizes = _sizes(OPENAI, tensors)
        heads = heads_for_width(sizes["hidden_dim"])
        encoder = _build(OPENAI, tensors, sizes, num_heads=heads)
    elif _is_transformers(path):
        encoder = _read_folder(path, IMAGE_MODELS)
    else:
        encoder = _from_keras_hub(source, path)
        encoder = getattr(encoder, "vision_encoder", encoder)
    if image_size in (None, encoder.image_shape[0]):
        return encoder
    if image_size % patch_size(encoder):
        raise ValueError(
            "`image_size` must be a multiple of the patch size "
            f"{patch_size(encoder)}. Received: image_size={image_size}"
        )
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
        return _read_folder(path, TEXT_MODELS)
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
    return hub.Backbone.from_preset(str(path.resolve() if folder else source))


def _read_folder(folder, models):
    """Read the encoder in a folder; `models` has the allowed model types."""
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    kind = configurations.require_type(config, path, models)
    tensors = open_tensors(weight_file(folder))
    if kind == "vit" and any("distillation" in key for key in tensors.shapes):
        kind = "deit"  # A configuration without a type does not tell.
    if kind == "clip":
        config = configurations.nested_values(config, "vision_config") or config
    model = models[kind]
    tensors = tensors.without_prefix(f"{model.prefix}.")
    sizes = _sizes(model, tensors)
    wrong = [
        f"{key}={config[key]!r:.50}, but {sizes[name]} in the weights"
        for key, name in CLAIMS.items()
        if name in sizes and config.get(key, sizes[name]) != sizes[name]
    ]
    arguments = {"num_heads": config.get("num_attention_heads", 12)}
    activation = config.get("hidden_act", model.activations[0])
    if activation not in model.activations:
        wrong.append(f"hidden_act={activation!r:.50}, not one of these")
    if len(model.activations) > 1:
        arguments["intermediate_activation"] = activation
    epsilon = config.get("layer_norm_eps", model.default)
    if model.epsilon is None:
        arguments["layer_norm_epsilon"] = epsilon
    elif epsilon != model.epsilon:
        wrong.append(f"layer_norm_eps={epsilon!r:.50}")
    if wrong:
        raise ConversionError(
            "A configuration must belong to its weights, with the activation "
            f"{' or '.join(model.activations)} and the epsilon "
            f"{model.epsilon or 'of its norms'}: KerasHub has no others.",
            path,
            wrong,
        )
    return _build(model, tensors, sizes, **arguments)


def _sizes(model, tensors):
    """Return the sizes of an encoder, from the shapes of its tensors."""
    layers = {"num_layers": model.layers}
    found = architecture.sizes(tensors, model.sizes, layers)
    if "patch_size" in found:
        side = math.isqrt(max(found["positions"] - model.before, 0))
        found["image_size"] = side * found["patch_size"]
    return found


def _build(model, tensors, sizes, **arguments):
    """Build an encoder and load its weights.

    Args:
        model: `Model`.
        tensors: `Tensors`.
        sizes: dict, as `_sizes` returns it.
        **arguments: further arguments of the encoder.
    """
    rules = model.rules("", sizes["num_layers"])
    unread_keys(rules, tensors, UNIMODAL_UNREAD)
    arguments |= {name: size for name, size in sizes.items() if name != "_"}
    positions = arguments.pop("positions")
    if "image_size" in sizes:
        side = arguments.pop("image_size")
        arguments["image_shape"] = (side, side, 3)
    else:
        arguments["max_sequence_length"] = positions - model.before
    if model.cls is hub.ViTBackbone:
        arguments["mlp_dim"] = arguments.pop("intermediate_dim")
    encoder = architecture.built(
        functools.partial(model.cls, **arguments), tensors
    )
    variables = variables_by_path(encoder, encoder=encoder)
    for name in [name for name in variables if name.startswith("pooled_dense")]:
        # KerasHub's BERT has a pooler, which the towers do not use.
        pooler = variables.pop(name)
        pooler.assign(np.zeros(pooler.shape))
    load_weights(rules, tensors, variables)
    return encoder


_TEXT_SIZES = {
    "embeddings.word_embeddings.weight": "vocabulary_size hidden_dim",
    "embeddings.position_embeddings.weight": "positions _",
    "encoder.layer.0.intermediate.dense.weight": "intermediate_dim _",
}
_IMAGE_SIZES = {
    "embeddings.patch_embeddings.projection.weight": (
        "hidden_dim _ patch_size _"
    ),
    "embeddings.position_embeddings": "_ positions _",
    "encoder.layer.0.intermediate.dense.weight": "intermediate_dim _",
}
TEXT_MODELS = {
    "roberta": Model(
        hub.RobertaBackbone,
        encoders.roberta,
        "roberta",
        _TEXT_SIZES,
        PADDING_ROWS,
        1e-5,
    ),
    "bert": Model(
        hub.BertBackbone, encoders.bert, "bert", _TEXT_SIZES, 0, 1e-12
    ),
}
CLIP = Model(
    hub.CLIPVisionEncoder,
    encoders.clip,
    "vision_model",
    {
        "embeddings.patch_embedding.weight": "hidden_dim _ patch_size _",
        "embeddings.position_embedding.weight": "positions _",
        "encoder.layers.0.mlp.fc1.weight": "intermediate_dim _",
    },
    before=1,
    epsilon=1e-5,
    default=1e-5,
    activations=("quick_gelu", "gelu"),
    layers="encoder.layers.",
)
OPENAI = dataclasses.replace(
    CLIP,
    # The names of CLIP's text side are those of the image side without it.
    rules=lambda prefix, layers: (
        encoders.openai_clip("visual.", layers) + encoders.final_norm("visual.")
    ),
    layers="visual.transformer.resblocks.",
    sizes={
        "visual.conv1.weight": "hidden_dim _ patch_size _",
        "visual.positional_embedding": "positions _",
        "visual.transformer.resblocks.0.mlp.c_fc.weight": "intermediate_dim _",
    },
)
IMAGE_MODELS = {
    "clip": CLIP,
    "clip_vision_model": CLIP,
    "vit": Model(hub.ViTBackbone, encoders.vit, "vit", _IMAGE_SIZES, 1),
    "deit": Model(hub.DeiTBackbone, encoders.deit, "deit", _IMAGE_SIZES, 2),
}
