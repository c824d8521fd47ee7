"""Swin (Liu et al., 2021), with windows that are shifted."""

import functools

import keras
import keras_hub

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.layers import PartOfStage
from keras_bridgetower.encoders.registry import IMAGENET
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import Rule
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import layers
from keras_bridgetower.encoders.rules import norm
from keras_bridgetower.encoders.rules import same
from keras_bridgetower.presets.configs import MOST_LAYERS


def side_step(encoder):
    """Return the side of images whose highest grid is one window.

    KerasHub shifts before it pads, transformers after, so no grid may be
    padded.
    """
    return _step(encoder.patch_size, encoder.window_size, len(encoder.depths))


def _step(patch, window, stages):
    return patch * window * 2 ** (stages - 1)


def _attention(path, key, bias):
    """Return the rules of query, key and value, one layer in KerasHub."""
    keys = [f"{key}self.{part}" for part in ("query", "key", "value")]
    joined_bias = tuple(f"{key}.bias" for key in keys), layouts.JOINED_BIAS
    return [
        Rule(
            (f"{path}attention_qkv/kernel",),
            tuple(f"{key}.weight" for key in keys),
            layouts.JOINED_DENSE,
        ),
        Rule(
            (f"{path}attention_qkv/bias",),
            *(joined_bias if bias else ((), layouts.ZEROS)),
        ),
        *dense(f"{path}attention_projection", f"{key}output.dense"),
        *same(
            f"{path}relative_position_bias_table",
            f"{key}self.relative_position_bias_table",
        ),
    ]


def rules(values):
    """Return the rules of a Swin, with transformers' names."""
    found = [
        *dense(
            "patch_embedding/conv_projection",
            "embeddings.patch_embeddings.projection",
            layouts.CONV,
        ),
        *norm("patch_embedding/norm", "embeddings.norm"),
    ]
    attention = functools.partial(_attention, bias=values["_bias"])
    for stage, depth in enumerate(values["depths"]):
        start = f"encoder.layers.{stage}."
        found += layers(
            depth,
            f"stage_{stage}/blocks_",
            f"{start}blocks.",
            (norm, "norm1", "layernorm_before"),
            (attention, "attn/", "attention."),
            (norm, "norm2", "layernorm_after"),
            (dense, "mlp/fc1", "intermediate.dense"),
            (dense, "mlp/fc2", "output.dense"),
        )
        if stage < len(values["depths"]) - 1:
            path = f"stage_{stage}/downsample"
            found += norm(f"{path}/norm", f"{start}downsample.norm")
            found += same(
                f"{path}/reduction/kernel",
                f"{start}downsample.reduction.weight",
                layouts.DENSE,
            )
    return found + norm("norm", "layernorm")


def _from_config(config, sizes):
    """Return the arguments of the encoder that a configuration describes."""
    depths = list(config.get("depths", (2, 2, 6, 2)))
    side, patch = config.get("image_size", 224), config.get("patch_size", 4)
    step = _step(patch, config.get("window_size", 7), len(depths))
    if not 0 < sum(depths) <= MOST_LAYERS or side < step or side % step:
        raise ValueError(
            f"`image_size` must be a multiple of {step}, so that windows fill "
            f"each grid. Received: image_size={side}, depths={depths}"
        )
    return {
        "depths": depths,
        "patch_size": patch,
        "image_shape": (side, side, 3),
    }


@register_encoder(
    keras_hub.models.SwinTransformerBackbone,
    "image",
    name="Swin",
    prefix_tokens=lambda encoder: 0,
    summary="mean",
    side_step=side_step,
    files=(
        Files(
            types=("swin",),
            rules=rules,
            values={
                "embed_dim": Value("embed_dim", 96),
                "num_heads": Value("num_heads", (3, 6, 12, 24)),
                "window_size": Value("window_size", 7),
                "mlp_ratio": Value("mlp_ratio", 4.0),
                "hidden_dropout_prob": Value("dropout_rate", 0.0),
                "attention_probs_dropout_prob": Value("attention_dropout", 0.0),
                "drop_path_rate": Value("drop_path", 0.1),
                "hidden_act": Value(None, "gelu", ("gelu",)),
                "qkv_bias": Value("_bias", True, (True, False)),
                "use_absolute_embeddings": Value(None, False, (False,)),
                "layer_norm_eps": Value(None, 1e-5, (1e-5,)),
            },
            arguments=_from_config,
            prefix="swin",
            unread=(
                r"classifier\..*|decoder\..*|embeddings\.mask_token",
                r".*relative_position_index",
            ),
            classifier="classifier",
        ),
    ),
    pixels=IMAGENET,
)
def states(encoder):
    """The outputs of all blocks; the last one is normalized."""
    x, states = encoder.get_layer("pos_drop").output, []
    for stage in encoder.stages:
        rows, columns = stage.input_resolution
        for block in stage.blocks:
            x = PartOfStage(block, name=f"{stage.name}_{block.name}")(x)
            states.append((x, (rows, columns, stage.dim)))
        if stage.downsample is not None:
            x = PartOfStage(
                stage.downsample,
                {"H": rows, "W": columns},
                name=f"{stage.name}_downsample",
            )(x)
    states[-1] = encoder.norm(x), states[-1][1]
    return [
        keras.layers.Reshape(grid, dtype=x.dtype, name=f"state_{i}_grid")(x)
        for i, (x, grid) in enumerate(states)
    ]
