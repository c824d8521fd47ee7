"""Reads weights of RoBERTa, BERT, CLIP, ViT and DeiT into KerasHub encoders."""

import functools

import keras_hub
import numpy as np

from keras_bridgetower.backend import uninitialized
from keras_bridgetower.convert import configurations
from keras_bridgetower.convert import transfer
from keras_bridgetower.convert.architecture import heads_of
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.rules import encoders
from keras_bridgetower.convert.rules.bridgetower import UNIMODAL_UNREAD
from keras_bridgetower.convert.rules.layouts import PADDING_ROWS
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.convert.tensors import weight_file
from keras_bridgetower.models.positions import resize_positions


def read_folder(folder, models, image_size=None):
    """Read the encoder in a folder; `models` maps model types to readers."""
    check_links(folder)
    path = folder / "config.json"
    config = read_json(path)
    kind = configurations.require_type(config, path, models)
    tensors = open_tensors(weight_file(folder))
    if not configurations.model_names(config):
        kind = configurations.kind_of(config, tensors.shapes)
    return models[kind](config, tensors, path, image_size)


def _sizes(kind, names, source):
    """Sizes from the configuration; the number of layers comes first."""
    config, tensors, path = source
    values = configurations.sizes(config, path, kind, *names)
    if values[0] > len(tensors.shapes):
        # Refuse early: rules for an absurd number of layers would take long.
        raise ConversionError(
            "A configuration must have the sizes of its weights.",
            path,
            [
                f"{names[0]}={values[0]}, {len(tensors.shapes)} tensors in "
                "the weights"
            ],
        )
    return values


SIZES = (
    "num_hidden_layers",
    "num_attention_heads",
    "hidden_size",
    "intermediate_size",
)
TEXT_SIZES = (*SIZES, "vocab_size", "max_position_embeddings")
IMAGE_SIZES = (*SIZES, "patch_size", "image_size")


def _text_reader(kind, rules, cls, padding, epsilon):
    def read(config, tensors, path, image_size):
        configurations.require_epsilon(config, path, epsilon, 1e-12)
        layers, heads, width, hidden, rows, positions = _sizes(
            kind, TEXT_SIZES, (config, tensors, path)
        )
        if config.get("hidden_act", "gelu") != "gelu":
            raise ConversionError(
                "A text encoder must use the exact GELU.",
                path,
                [f"hidden_act={config['hidden_act']!r}"],
            )
        tensors = tensors.without_prefix(f"{kind}.")
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
        source = (tensors, path)
        return _build_and_load(cls, sizes, rules("", layers), expected, source)

    return read


def _read_clip(config, tensors, path, image_size):
    config = configurations.nested_values(config, "vision_config") or config
    configurations.require_epsilon(config, path, 1e-5, 1e-5)
    if config.get("hidden_act", "quick_gelu") not in ("quick_gelu", "gelu"):
        raise ConversionError(
            "CLIP must use GELU, exact or quick.",
            path,
            [f"hidden_act={config['hidden_act']!r}"],
        )
    layers, heads, width, hidden, patch, side = _sizes(
        "clip", IMAGE_SIZES, (config, tensors, path)
    )
    tensors = tensors.without_prefix("vision_model.")
    sizes = dict(
        patch_size=patch,
        hidden_dim=width,
        num_layers=layers,
        num_heads=heads,
        intermediate_dim=hidden,
        intermediate_activation=config.get("hidden_act", "quick_gelu"),
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
        (tensors, path),
        (image_size, side, patch, 1),
    )


def _vit_reader(kind, rules, cls, hidden_name, prefix):
    def read(config, tensors, path, image_size):
        layers, heads, width, hidden, patch, side = _sizes(
            kind, IMAGE_SIZES, (config, tensors, path)
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
            (tensors.without_prefix(f"{kind}."), path),
            (image_size, side, patch, prefix),
        )

    return read


def read_openai_clip(path, image_size=None):
    """Read the vision encoder in a state dict of OpenAI's CLIP."""
    tensors = open_tensors(path)
    try:
        patches = tensors.shapes["visual.conv1.weight"]
        table = tensors.shapes["visual.positional_embedding"]
        width, patch = patches[0], patches[-1]
        hidden = tensors.shapes[
            "visual.transformer.resblocks.0.mlp.c_fc.weight"
        ][0]
    except (KeyError, IndexError) as error:
        raise ConversionError(
            "The file must be a state dict of OpenAI's CLIP with a vision "
            "transformer.",
            path,
            [f"without {error}"],
        ) from None
    layers = len(
        [
            k
            for k in tensors.shapes
            if k.endswith("attn.in_proj_weight") and k.startswith("visual.")
        ]
    )
    sizes = dict(
        patch_size=patch,
        hidden_dim=width,
        num_layers=layers,
        num_heads=heads_of(width),
        intermediate_dim=hidden,
    )
    side = round((table[0] - 1) ** 0.5) * patch
    return _build_image_encoder(
        keras_hub.models.CLIPVisionEncoder,
        sizes,
        encoders.openai_clip("visual.", layers)
        + encoders.final_norm("visual."),
        (
            "visual.conv1.weight",
            "visual.transformer.resblocks.0.mlp.c_fc.weight",
            "visual.positional_embedding",
        ),
        (tensors, path),
        (image_size, side, patch, 1),
    )


def _build_image_encoder(cls, sizes, rules, keys, source, grid):
    """Build an image encoder and resize its positions if needed.

    `keys` are the names of the tensors of the patch kernel, of the first
    feed-forward kernel and of the positions. `grid` holds the image size that
    the caller wants (or None), the image size of the configuration, the patch
    size, and the number of tokens before the patches.
    """
    tensors, path = source
    patches, hidden_layer, key = keys
    width = sizes["hidden_dim"]
    hidden = sizes.get("mlp_dim") or sizes["intermediate_dim"]
    expected = {
        patches: (width, 3, sizes["patch_size"], sizes["patch_size"]),
        hidden_layer: (hidden, width),
    }
    asked, own, patch, prefix = grid
    side = asked or own
    if side % patch:
        raise ConversionError(
            "`image_size` must be a multiple of the patch size.",
            path,
            [f"image_size={side}, patch_size={patch}"],
        )
    count = (side // patch) ** 2 + prefix
    shape = tensors.shapes.get(key)
    if shape is not None and len(shape) > 1:
        resized = (*shape[:-2], count, shape[-1])
        if asked is None:
            expected[key] = resized
        elif shape != resized:
            tensors = tensors.with_value(
                key,
                resized,
                lambda: resize_positions(source[0].read(key), count),
            )
    sizes = {**sizes, "image_shape": (side, side, 3)}
    return _build_and_load(cls, sizes, rules, expected, (tensors, path))


def _build_and_load(cls, sizes, rules, expected, source):
    """Build an encoder of the given sizes and load its weights.

    `expected` maps the tensors that determine the sizes to their shapes.
    """
    tensors, path = source
    transfer.unread_keys(rules, tensors, UNIMODAL_UNREAD)
    wrong = [
        f"{key} has shape {tensors.shapes[key]}, not {shape}"
        for key, shape in expected.items()
        if tensors.shapes[key] != shape
    ]
    if wrong:
        # Refuse before memory is allocated for sizes that are only claimed.
        raise ConversionError(
            "A configuration must have the sizes of its weights.", path, wrong
        )
    try:
        encoder = uninitialized.without_initialization(
            functools.partial(cls, **sizes)
        )
    except ValueError as error:
        raise ConversionError(
            f"A configuration must fit together: {error!s:.300}", path
        ) from error
    variables = transfer.variables_of(encoder, encoder=encoder)
    ruled = {path for rule in rules for path in rule.variables}
    for path in [p for p in variables if p.startswith("pooled_dense")]:
        if path not in ruled:
            # KerasHub's BERT has a pooler, which the towers do not use.
            pooler = variables.pop(path)
            pooler.assign(np.zeros(pooler.shape))
    transfer.load(rules, tensors, variables)
    return encoder


_BERT, _ROBERTA = (
    keras_hub.models.BertBackbone,
    keras_hub.models.RobertaBackbone,
)
TEXT_MODELS = {
    "roberta": _text_reader(
        "roberta", encoders.roberta, _ROBERTA, PADDING_ROWS, 1e-5
    ),
    "bert": _text_reader("bert", encoders.bert, _BERT, 0, 1e-12),
}
IMAGE_MODELS = {
    "clip": _read_clip,
    "clip_vision_model": _read_clip,
    "vit": _vit_reader(
        "vit", encoders.vit, keras_hub.models.ViTBackbone, "mlp_dim", 1
    ),
    "deit": _vit_reader(
        "deit",
        encoders.deit,
        keras_hub.models.DeiTBackbone,
        "intermediate_dim",
        2,
    ),
}
