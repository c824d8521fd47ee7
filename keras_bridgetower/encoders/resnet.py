"""ResNet (He et al., 2016), of either version."""

import re

import keras_hub

from keras_bridgetower.encoders.registry import IMAGENET
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import batch_norm
from keras_bridgetower.encoders.rules import conv
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.presets.configs import MOST_LAYERS

# Kinds of blocks in transformers: KerasHub's name, the number of convolutions,
# and the width of the output relative to the inner width.
_KINDS = {
    "basic": ("basic_block", 2, 1),
    "bottleneck": ("bottleneck_block", 3, 4),
}
_SIDE = 224


def _convolution(path, key):
    kernel = conv(f"{path}conv", f"{key}convolution")
    return kernel + batch_norm(f"{path}bn", f"{key}normalization")


def rules(values):
    """Return the rules of a ResNet, with transformers' names."""
    found = _convolution("conv1_", "embedder.embedder.")
    counts = {name: count for name, count, _ in _KINDS.values()}
    count = counts[values["block_type"]]
    for stage, depth in enumerate(values["stackwise_num_blocks"]):
        for block in range(depth):
            parts = [
                (_convolution, f"{i + 1}_", f"layer.{i}.") for i in range(count)
            ]
            if block == 0 and (count == 3 or stage > 0):
                parts.append((_convolution, "0_", "shortcut."))
            found += joined(
                f"stack{stage}_block{block}_",
                f"encoder.stages.{stage}.layers.{block}.",
                *parts,
            )
    return found


def _from_config(config, sizes):
    """Return the arguments of the encoder that a configuration describes."""
    kind = config.get("layer_type", "bottleneck")
    name, _, wider = _KINDS[kind]
    widths = list(config.get("hidden_sizes", (256, 512, 1024, 2048)))
    depths = list(config.get("depths", (3, 4, 6, 3)))
    if len(widths) != len(depths) or not 0 < sum(depths) <= MOST_LAYERS:
        raise ValueError(
            f"`depths` must name at most {MOST_LAYERS} blocks of each of "
            f"`hidden_sizes`. Received: {depths}, {widths}"
        )
    return {
        "input_conv_filters": [config.get("embedding_size", 64)],
        "input_conv_kernel_sizes": [7],
        "stackwise_num_filters": [width // wider for width in widths],
        "stackwise_num_blocks": depths,
        "stackwise_num_strides": [1] + [2] * (len(depths) - 1),
        "block_type": name,
        "image_shape": (_SIDE, _SIDE, 3),
    }


@register_encoder(
    keras_hub.models.ResNetBackbone,
    "image",
    name="ResNet",
    prefix_tokens=lambda encoder: 0,
    summary="mean",
    files=(
        Files(
            types=("resnet",),
            rules=rules,
            values={
                "layer_type": Value(None, "bottleneck", tuple(_KINDS)),
                "hidden_act": Value(None, "relu", ("relu",)),
                "downsample_in_first_stage": Value(None, False, (False,)),
                "downsample_in_bottleneck": Value(None, False, (False,)),
            },
            arguments=_from_config,
            prefix="resnet",
            unread=(r"classifier\..*",),
            classifier="classifier.1",
        ),
    ),
    pixels={**IMAGENET, "crop_pct": 224 / 256},
)
def states(encoder):
    """The outputs of all blocks; of version 2 the last one is normalized."""
    blocks = [
        layer.output
        for layer in encoder.layers
        if re.fullmatch(r"stack\d+_block\d+_out", layer.name)
    ]
    return [*blocks[:-1], encoder.output]
