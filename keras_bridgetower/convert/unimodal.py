"""Opens pre-trained image and text encoders, and their tokenizers.

Pre-training of a BridgeTower starts from such encoders.
"""

import functools
import math
import pathlib

import keras_hub
import numpy as np

from keras_bridgetower.backend import uninitialized
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
from keras_bridgetower.models.positions import resize_positions
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.needed_files import is_keras

SIZES = (
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_size",
    "intermediate_size",
)


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
        return _read_folder(path, IMAGE_MODELS, image_size)
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


def _read_folder(folder, models, image_size=None):
    """Read the encoder in a folder; `models` maps model types to readers."""
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    kind = configurations.require_type(config, path, models)
    tensors = open_tensors(weight_file(folder))
    if not configurations.model_names(config):
        kind = configurations.model_type(config, tensors.shapes)
    return models[kind](config, tensors, path, image_size)


def _read_sizes(kind, names, config, tensors, path):
    """Read `SIZES` and other sizes from the configuration."""
    values = configurations.sizes(config, path, kind, *SIZES, *names)
    if values[0] > len(tensors.shapes):
        # Reject early: rules for an absurd number of layers would take long.
        raise ConversionError(
            "A configuration must have the sizes of its weights.",
            path,
            [
                f"{SIZES[0]}={values[0]}, {len(tensors.shapes)} tensors in "
                "the weights"
            ],
        )
    return values


def _require_activation(config, path, allowed, problem):
    """Check `hidden_act`, which is the first of `allowed` by default."""
    found = config.get("hidden_act", allowed[0])
    if found not in allowed:
        raise ConversionError(problem, path, [f"hidden_act={found!r}"])
    return found


def _read_text(
    kind, rules, cls, padding, epsilon, config, tensors, path, image_size
):
    configurations.require_epsilon(config, path, epsilon, 1e-12)
    layers, heads, width, hidden, rows, positions = _read_sizes(
        kind, ("vocab_size", "max_position_embeddings"), config, tensors, path
    )
    _require_activation(
        config, path, ["gelu"], "A text encoder must use the exact GELU."
    )
    sizes = dict(
        vocabulary_size=rows,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        intermediate_dim=hidden,
        max_sequence_length=positions - padding,
    )
    expected = {
        "embeddings.word_embeddings.weight": (rows, width),
        "embeddings.position_embeddings.weight": (positions, width),
        "encoder.layer.0.intermediate.dense.weight": (hidden, width),
    }
    tensors = tensors.without_prefix(f"{kind}.")
    return _build(cls, sizes, rules("", layers), expected, tensors, path)


def _read_clip(config, tensors, path, image_size):
    config = configurations.nested_values(config, "vision_config") or config
    configurations.require_epsilon(config, path, 1e-5, 1e-5)
    activation = _require_activation(
        config,
        path,
        ["quick_gelu", "gelu"],
        "CLIP must use GELU, exact or quick.",
    )
    layers, heads, width, hidden, patch, side = _read_sizes(
        "clip", ("patch_size", "image_size"), config, tensors, path
    )
    sizes = dict(
        patch_size=patch,
        hidden_dim=width,
        num_layers=layers,
        num_heads=heads,
        intermediate_dim=hidden,
        intermediate_activation=activation,
    )
    return _build_image_encoder(
        keras_hub.models.CLIPVisionEncoder,
        sizes,
        encoders.clip("", layers),
        (
            "embeddings.patch_embedding.weight",
            "encoder.layers.0.mlp.fc1.weight",
            "embeddings.position_embedding.weight",
        ),
        (image_size, side),
        tensors.without_prefix("vision_model."),
        path,
    )


def _read_vit(
    kind, rules, cls, hidden_name, prefix, config, tensors, path, image_size
):
    layers, heads, width, hidden, patch, side = _read_sizes(
        kind, ("patch_size", "image_size"), config, tensors, path
    )
    sizes = dict(
        patch_size=patch,
        num_layers=layers,
        num_heads=heads,
        hidden_dim=width,
        layer_norm_epsilon=configurations.epsilon(config, path, 1e-12),
        **{hidden_name: hidden},
    )
    return _build_image_encoder(
        cls,
        sizes,
        rules("", layers),
        (
            "embeddings.patch_embeddings.projection.weight",
            "encoder.layer.0.intermediate.dense.weight",
            "embeddings.position_embeddings",
        ),
        (image_size, side),
        tensors.without_prefix(f"{kind}."),
        path,
        prefix,
    )


def _read_openai_clip(path, image_size=None):
    tensors = open_tensors(path)
    keys = (
        "visual.conv1.weight",
        "visual.transformer.resblocks.0.mlp.c_fc.weight",
        "visual.positional_embedding",
    )
    try:
        (width, *_, patch), (hidden, *_), (positions, *_) = (
            tensors.shapes[key] for key in keys
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
    return _build_image_encoder(
        keras_hub.models.CLIPVisionEncoder,
        sizes,
        encoders.openai_clip("visual.", layers)
        + encoders.final_norm("visual."),
        keys,
        (image_size, math.isqrt(max(positions - 1, 0)) * patch),
        tensors,
        path,
    )


def _build_image_encoder(
    cls, sizes, rules, keys, sides, tensors, path, prefix=1
):
    """Build an image encoder and resize its positions if needed.

    Args:
        cls: class of the encoder.
        sizes: dict of its constructor arguments, without the image size.
        rules: list of `Rule`.
        keys: names of the tensors of the patch kernel, of the first
            feed-forward kernel and of the positions.
        sides: the image size that the caller wants (or None), and that of the
            weights.
        tensors: `Tensors`.
        path: path of the configuration, for errors.
        prefix: int, number of tokens before the patches.
    """
    width, patch = sizes["hidden_dim"], sizes["patch_size"]
    hidden = sizes.get("mlp_dim") or sizes["intermediate_dim"]
    kernel, dense, positions = keys
    expected = {kernel: (width, 3, patch, patch), dense: (hidden, width)}
    side = sides[0] or sides[1]
    if side % patch:
        raise ConversionError(
            "`image_size` must be a multiple of the patch size.",
            path,
            [f"image_size={side}, patch_size={patch}"],
        )
    count = (side // patch) ** 2 + prefix
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
    sizes = {**sizes, "image_shape": (side, side, 3)}
    return _build(cls, sizes, rules, expected, tensors, path)


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
    try:
        encoder = uninitialized.without_initialization(
            functools.partial(cls, **sizes)
        )
    except ValueError as error:
        raise ConversionError(
            f"The sizes of a configuration must fit together: {error!s:.300}",
            path,
        ) from error
    variables = variables_by_path(encoder, encoder=encoder)
    ruled = {path for rule in rules for path in rule.variables}
    for name in set(variables) - ruled:
        if name.startswith("pooled_dense"):
            # KerasHub's BERT has a pooler, which the towers do not use.
            pooler = variables.pop(name)
            pooler.assign(np.zeros(pooler.shape))
    load_weights(rules, tensors, variables)
    return encoder


TEXT_MODELS = {
    "roberta": functools.partial(
        _read_text,
        "roberta",
        encoders.roberta,
        keras_hub.models.RobertaBackbone,
        PADDING_ROWS,
        1e-5,
    ),
    "bert": functools.partial(
        _read_text,
        "bert",
        encoders.bert,
        keras_hub.models.BertBackbone,
        0,
        1e-12,
    ),
}
IMAGE_MODELS = {
    "clip": _read_clip,
    "clip_vision_model": _read_clip,
    "vit": functools.partial(
        _read_vit,
        "vit",
        encoders.vit,
        keras_hub.models.ViTBackbone,
        "mlp_dim",
        1,
    ),
    "deit": functools.partial(
        _read_vit,
        "deit",
        encoders.deit,
        keras_hub.models.DeiTBackbone,
        "intermediate_dim",
        2,
    ),
}
