"""EfficientNet (Tan and Le, 2019), and EfficientNet-Lite.

KerasHub has blocks of two types: `v1` pads a strided convolution on both sides,
as `timm` does; `unfused` as TensorFlow does, with which the weights of
`transformers` and of Lite were trained. Only `v1` can have a block that does
not expand. With stride 1 both are the same, so `v1` is used there.
"""

import functools
import itertools
import math
import re

import keras_hub

from keras_bridgetower.encoders import layouts
from keras_bridgetower.encoders.registry import IMAGENET
from keras_bridgetower.encoders.registry import LITE
from keras_bridgetower.encoders.registry import Files
from keras_bridgetower.encoders.registry import Value
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.rules import batch_norm
from keras_bridgetower.encoders.rules import conv
from keras_bridgetower.encoders.rules import dense
from keras_bridgetower.encoders.rules import joined
from keras_bridgetower.presets.configs import MOST_LAYERS

# Keys of a configuration with one value for each stack of blocks, the
# arguments that take them, and the values of all published sizes.
_STACKS = {
    "kernel_sizes": ("kernel_sizes", (3, 3, 5, 3, 5, 5, 3)),
    "num_block_repeats": ("num_repeats", (1, 2, 2, 3, 3, 4, 1)),
    "in_channels": ("input_filters", (32, 16, 24, 40, 80, 112, 192)),
    "out_channels": ("output_filters", (16, 24, 40, 80, 112, 192, 320)),
    "expand_ratios": ("expansion_ratios", (1, 6, 6, 6, 6, 6, 6)),
    "strides": ("strides", (1, 2, 2, 2, 1, 2, 1)),
}
STRIDES = _STACKS["strides"][1]
# Side of the images of Lite0.
LITE_SIDE = 224
_depthwise = functools.partial(conv, layout=layouts.DEPTHWISE)
_excitation = functools.partial(dense, layout=layouts.CONV)
# The parts of a block: expansion, depthwise convolution and projection, each
# with its norm.
_MAKES = (conv, batch_norm, _depthwise, batch_norm, conv, batch_norm)
# KerasHub's names of depthwise convolution and projection, by a block's type.
_CORE = {
    "v1": ("dwconv", "dwconv_bn", "project", "project_bn"),
    "unfused": ("dwconv2", "bn", "project_conv", "project_bn"),
}


def _depths(values):
    """Return the number of blocks of each stack."""
    names = ("stackwise_num_repeats", "stackwise_depth_coefficients")
    pairs = zip(*map(values.get, names), strict=True)
    return [math.ceil(count * coefficient) for count, coefficient in pairs]


def _block_rules(values, start, names, excitation=()):
    """Return the rules of all blocks.

    Args:
        values: dict of the arguments of the encoder.
        start: str, the start of the names of tensors of blocks.
        names: list of str, the names of the parts in the order of `_MAKES`.
        excitation: tuple of further parts, as in `joined`.
    """
    rules, number = [], itertools.count()
    stacks = zip(
        _depths(values),
        values["stackwise_block_types"],
        values["stackwise_expansion_ratios"],
        strict=True,
    )
    for stack, (depth, kind, ratio) in enumerate(stacks, 1):
        own = ("expand_conv", "expand_bn", *_CORE[kind])
        parts = [*zip(_MAKES, own, names, strict=True), *excitation]
        if ratio == 1:
            parts = parts[2:]  # Nothing is expanded.
        for letter in range(depth):
            path = f"block{stack}{chr(ord('a') + letter)}_"
            if kind == "unfused":
                path = f"{path}/{path}"
            rules += joined(path, f"{start}{next(number)}.", *parts)
    return rules


def transformers_rules(values):
    """Return the rules of an EfficientNet, with transformers' names."""
    names = [
        *("expansion.expand_conv", "expansion.expand_bn"),
        *("depthwise_conv.depthwise_conv", "depthwise_conv.depthwise_norm"),
        *("projection.project_conv", "projection.project_bn"),
    ]
    excitation = (
        (_excitation, "se_reduce", "squeeze_excite.reduce"),
        (_excitation, "se_expand", "squeeze_excite.expand"),
    )
    return [
        *conv("stem_conv", "embeddings.convolution"),
        *batch_norm("stem_bn", "embeddings.batchnorm"),
        *_block_rules(values, "encoder.blocks.", names, excitation),
        *conv("top_conv", "encoder.top_conv"),
        *batch_norm("top_bn", "encoder.top_bn"),
    ]


def lite_rules(values):
    """Return the rules of an EfficientNet-Lite, with its PyTorch names."""
    names = "_expand_conv _bn0 _depthwise_conv _bn1 _project_conv _bn2"
    return [
        *conv("stem_conv", "_conv_stem"),
        *batch_norm("stem_bn", "_bn0"),
        *_block_rules(values, "_blocks.", names.split()),
        *conv("top_conv", "_conv_head"),
        *batch_norm("top_bn", "_bn1"),
    ]


def _arguments(stacks, side, width, depth, squeeze):
    """Return arguments of the encoder that pad as TensorFlow does.

    Args:
        stacks: dict from the keys of `_STACKS` to lists.
        side: int, side of images.
        width, depth: float, coefficients of all stacks.
        squeeze: float, share of the width that excitation keeps; 0 for none.
    """
    count = len(stacks["strides"])
    if {len(values) for values in stacks.values()} != {count}:
        raise ValueError(f"Lists must have {count} values. Received: {stacks}")
    values = {
        f"stackwise_{name}": list(stacks[key])
        for key, (name, _) in _STACKS.items()
    }
    values |= {
        "stackwise_width_coefficients": [width] * count,
        "stackwise_depth_coefficients": [depth] * count,
        "stackwise_squeeze_and_excite_ratios": [squeeze] * count,
        "stackwise_block_types": [
            "v1" if stride == 1 else "unfused" for stride in stacks["strides"]
        ],
        "include_stem_padding": False,
        "stem_conv_padding": "same",
        "input_shape": (side, side, 3),
    }
    if not 0 < sum(_depths(values)) <= MOST_LAYERS:
        raise ValueError(f"At most {MOST_LAYERS} blocks. Received: {stacks}")
    return values


def _from_config(config, sizes):
    """Return the arguments of the encoder that a configuration describes."""
    stacks = {
        key: list(config.get(key, default))
        for key, (_, default) in _STACKS.items()
    }
    side = config.get("image_size", 600)
    width = config.get("width_coefficient", 2.0)
    depth = config.get("depth_coefficient", 3.1)
    squeeze = config.get("squeeze_expansion_ratio", 0.25)
    values = _arguments(stacks, side, width, depth, squeeze)
    square = set(config.get("depthwise_padding", ()))
    _check_padding(stacks["strides"], _depths(values), side, square)
    divisor = config.get("depth_divisor", 8)
    _check_residuals(stacks, width, divisor)
    return {
        **values,
        "depth_divisor": divisor,
        "use_depth_divisor_as_min_depth": True,
        "cap_round_filter_decrease": True,
    }


def _check_padding(strides, depths, side, square):
    """Raise if blocks do not pad as TensorFlow does at their side of images.

    Args:
        strides, depths: list of int, of each stack.
        side: int, side of images.
        square: set of int, the blocks that pad all edges equally.
    """
    fits = set(strides) <= {1, 2} and 0 < side and side % 2 == 0
    first, grid = 0, side // 2
    for stride, depth in zip(strides, depths, strict=True):
        if stride == 2:
            fits = fits and (first in square) == (grid % 2 == 1)
        first, grid = first + depth, math.ceil(grid / stride)
    if not fits:
        raise ValueError(
            "`image_size` must be even, and `depthwise_padding` must list the "
            "blocks that halve an odd side. Received: "
            f"image_size={side}, strides={strides}, {sorted(square)}"
        )


def _check_residuals(stacks, width, divisor):
    """Raise if only KerasHub would add the input of a stack's first block."""
    keys = ("in_channels", "out_channels", "strides")
    for before, after, stride in zip(*map(stacks.get, keys), strict=True):
        rounded = [_rounded(x * width, divisor) for x in (before, after)]
        if stride == 1 and rounded[0] == rounded[1]:
            raise ValueError(
                "A stack of stride 1 must change the width. Received: "
                f"{before} and {after} channels, rounded to {rounded}"
            )


def _rounded(filters, divisor):
    near = max(divisor, int(filters + divisor / 2) // divisor * divisor)
    return near + divisor if near < 0.9 * filters else near


def _measured_lite(shapes):
    """Return the arguments of an EfficientNet-Lite, from its tensors.

    The blocks of a stack have the same width.
    """
    outputs = []
    while (key := f"_blocks.{len(outputs)}._project_conv.weight") in shapes:
        outputs.append(shapes[key][0])
    stacks, block = {key: [] for key in _STACKS}, 0
    width = shapes["_conv_stem.weight"][0]
    for after, group in itertools.groupby(outputs):
        depthwise = shapes[f"_blocks.{block}._depthwise_conv.weight"]
        repeats = len(list(group))
        found = depthwise[-1], repeats, width, after, depthwise[0] // width
        for key, value in zip(_STACKS, found, strict=False):
            stacks[key].append(value)
        block, width = block + repeats, after
    stacks["strides"] = STRIDES
    return {
        **_arguments(stacks, LITE_SIDE, 1.0, 1.0, 0),
        "activation": "relu6",
        "batch_norm_epsilon": 1e-3,
        "batch_norm_momentum": 0.99,
    }


@register_encoder(
    keras_hub.models.EfficientNetBackbone,
    "image",
    name="EfficientNet, EfficientNet-Lite",
    prefix_tokens=lambda encoder: 0,
    summary="mean",
    sized=lambda shape: {"input_shape": shape},
    files=(
        Files(
            types=("efficientnet",),
            rules=transformers_rules,
            values={
                "hidden_act": Value("activation", "swish", ("swish", "silu")),
                "batch_norm_eps": Value("batch_norm_epsilon", 1e-3),
                "batch_norm_momentum": Value("batch_norm_momentum", 0.99),
                "drop_connect_rate": Value("dropout", 0.2),
            },
            arguments=_from_config,
            prefix="efficientnet",
            unread=(r"classifier\..*",),
            classifier="classifier",
        ),
        Files(
            rules=lite_rules,
            mark="_conv_stem.weight",
            measure=_measured_lite,
            unread=(r"_fc\..*",),
            classifier="_fc",
            pixels={**LITE, "crop_pct": 224 / 256},
        ),
    ),
    pixels={**IMAGENET, "crop_pct": 224 / 256},
)
def states(encoder):
    """The outputs of all blocks, and above them that of the top layers."""
    blocks = {}
    for layer in encoder.layers:
        block = re.match(r"block\d+._", layer.name)
        if block:
            # Keeps the last layer of the block.
            blocks[block[0]] = layer.output
    return [*blocks.values(), encoder.output]
