"""Converts image processors of `transformers` to image converters."""

import math
import pathlib
import re

import numpy as np

from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import is_integer
from keras_bridgetower.convert.tensors import check_links
from keras_bridgetower.convert.tensors import read_json
from keras_bridgetower.encoders import registry
from keras_bridgetower.preprocessing.geometry import RESAMPLES
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.preprocessing.images import STD
from keras_bridgetower.presets.errors import ConversionError

IMAGENET = {f"image_{key}": x for key, x in registry.IMAGENET.items()}
# Settings that a file may omit: those of most classes, then of single ones, by
# their names in `transformers` without "ImageProcessor". A resample is a number
# of Pillow, 2 is bilinear and 3 bicubic.
DEFAULTS = dict(
    do_resize=True,
    size=(224, 224),
    default_to_square=True,
    resample=3,
    do_center_crop=False,
    crop_size=224,
    crop_pct=224 / 256,
    do_pad=False,
    use_square_size=False,
    do_rescale=True,
    rescale_factor=1 / 255,
    rescale_offset=False,
    do_normalize=True,
    image_mean=0.5,
    image_std=0.5,
    include_top=False,
)
_CLIP = dict(
    size={"shortest_edge": 224},
    default_to_square=False,
    do_center_crop=True,
    image_mean=MEAN,
    image_std=STD,
)
CLASSES = {
    "CLIP": _CLIP,
    "Bit": _CLIP,
    "Siglip": {"default_to_square": False},
    "ViT": {"resample": 2},
    "DeiT": {"size": (256, 256), "do_center_crop": True},
    "DINOv3ViT": {"resample": 2, **IMAGENET},
    "EfficientNet": {"size": (346, 346), "crop_size": 289, "include_top": True},
    "ConvNext": {"size": {"shortest_edge": 384}, "default_to_square": False},
    "BridgeTower": {**_CLIP, "size_divisor": 32},
}
# Settings with one supported value: those of most classes, then of single ones.
FIXED = dict(do_resize=True, do_pad=False, use_square_size=False)
BRIDGETOWER = dict(
    do_resize=True,
    do_center_crop=True,
    do_rescale=True,
    resample=3,
    rescale_factor=1 / 255,
)
FIXED_OF = {
    "ConvNext": FIXED | {"do_center_crop": False},
    "BridgeTower": BRIDGETOWER,
}
# BridgeTower resizes, and crops or pads, to one side. Published files of the
# base size have the authors' name of it.
SIDES = ("size", "crop_size", "image_size")
# Of a BridgeTower, if no file names it.
_SIDE = 288
# From this side on ConvNeXt squashes whole pictures.
_WHOLE = 384


def image_converter(source, image_size=None):
    """Make the converter of pictures for a pre-trained image encoder.

    It reads `preprocessor_config.json` or `processor_config.json`. Pixels are
    those of the image processor of `transformers` that uses Pillow
    (`backend="pil"`). When torchvision shrinks a picture, fewer than one value
    in a hundred differ, by one of 255 levels.
    DINOv3's, the only one without Pillow, does not round to levels after
    resizing, so values differ by up to one level.

    Args:
        source: path of a `transformers` folder of CLIP, MetaCLIP 2, SigLIP,
            SigLIP 2 of a fixed size, ViT, DeiT, DINOv2, DINOv3, EfficientNet,
            ConvNeXt, ResNet, Swin or BridgeTower.
        image_size: int, side of the images in pixels. By default that of the
            file. The size before a crop keeps its ratio to it: 256 and 224
            become 384 and 336. ConvNeXt crops below 384 pixels only.
            BridgeTower's files have one size, that of the model.

    Returns:
        A `BridgeTowerImageConverter`.

    Raises:
        ConversionError: the file is missing, or has settings that the converter
            does not support. The error lists them.

    Example:

    ```python
    image_converter("dinov2-base", image_size=224)
    ```

    Source: the image processors of `transformers`.
    """
    if image_size is not None:
        check_count("image_size", image_size)
    folder = pathlib.Path(source)
    if folder.is_dir():
        check_links(folder)
    path, config = saved_image_processor(folder)
    if not config:
        raise ConversionError(
            "A folder must have the settings of its image processor, in "
            "preprocessor_config.json or processor_config.json. Fetch the "
            "file, or build a BridgeTowerImageConverter with the encoder's "
            "image_size, mean and std.",
            folder,
        )
    return _converter(path, config, image_size, CLASSES)


def read_bridgetower(path, config, image_size):
    """Make the converter of a BridgeTower, as `image_converter`.

    Args:
        path: path of the file.
        config: dict, the values of the image processor in it.
        image_size: int, side of the images of the model.
    """
    kind = config.get("image_processor_type") or "BridgeTower"
    config = {**config, "image_processor_type": kind}
    return _converter(path, config, image_size, ("BridgeTower",))


def saved_image_processor(folder):
    """Return path and values of the image processor, or `(None, {})`."""
    path = folder / "preprocessor_config.json"
    if path.is_file():
        return path, read_json(path)
    path = folder / "processor_config.json"
    values = path.is_file() and read_json(path).get("image_processor")
    return (path, values) if values else (None, {})


def _converter(path, config, image_size, classes):
    """Make a converter of the values in a file, of one of the classes."""
    wrong = []
    try:
        values = _read(config, image_size, wrong, classes)
        if not wrong:
            return BridgeTowerImageConverter(**values)
    except (TypeError, ValueError, ArithmeticError) as error:
        wrong.append(f"{error!s:.300}")
    raise ConversionError(
        "An image processor must make squares of the model's side, and be one "
        f"of transformers' {', '.join(f'{n}ImageProcessor' for n in classes)}. "
        "For others build a BridgeTowerImageConverter.",
        path,
        wrong,
    )


def _read(config, image_size, wrong, classes):
    """Return values of a converter, and add unsupported settings to `wrong`."""
    named = config.get("image_processor_type")
    named = named or config.get("feature_extractor_type")
    kind = re.sub("(ImageProcessor|FeatureExtractor).*", "", str(named))
    if kind not in classes:
        # Siglip2's makes as many patches as the aspect ratio needs (NaFlex).
        wrong.append(f"image_processor_type={named!r:.60}")
        return {}
    given = {k: v for k, v in config.items() if v is not None}
    config = DEFAULTS | CLASSES[kind] | given
    # The file may have a rounded factor.
    if math.isclose(config["rescale_factor"], 1 / 255, rel_tol=1e-6):
        config["rescale_factor"] = 1 / 255
    fixed = FIXED_OF.get(kind, FIXED)
    unfit = [name for name, value in fixed.items() if config[name] != value]
    larger, shortest = read_side(config["size"], config["default_to_square"])
    side, mode = larger, "squash"
    convnext = kind == "ConvNext"
    if kind == "BridgeTower":
        sides = {n: read_side(given[n])[0] for n in SIDES if n in given}
        side = larger = image_size or next(iter(sides.values()), _SIDE)
        mode, shortest = "hf", False
        unfit += [name for name, found in sides.items() if found != side]
    elif convnext:
        side = larger = larger and (image_size or larger)
        if side and side < _WHOLE:
            mode, larger = "center", int(side / config["crop_pct"])
    elif config["do_center_crop"]:
        side, _ = read_side(config["crop_size"])
        mode = "center" if shortest else "squash"
    if not larger or shortest != (convnext or mode == "center"):
        unfit.append("size")
    elif not side or side > larger:
        unfit.append("crop_size")
    resamples = {int(number): name for name, number in RESAMPLES.items()}
    if config["resample"] not in resamples:
        unfit.append("resample")
    wrong += [f"{name}={config[name]!r:.60}" for name in unfit]
    if wrong:
        return {}
    mean, std = _statistics(config)
    own = {k: config[k] for k in ("size_divisor",) if k in CLASSES[kind]}
    return dict(
        image_size=image_size or side,
        mode=mode,
        mean=mean,
        std=std,
        crop_pct=side / larger,
        resample=resamples[config["resample"]],
        **own,
    )


def read_side(size, to_square=True):
    """Return a side in pixels, and True if it is that of the shorter side.

    Args:
        size: any form of a size in a file; the side is None for others.
        to_square: bool, True if one number is the side of a square.
    """
    if isinstance(size, dict):
        size = {k: v for k, v in size.items() if v is not None}
        if set(size) == {"shortest_edge"}:
            size, to_square = size["shortest_edge"], False
        else:
            # Other keys make it too long.
            size = [size.pop("height", None), size.pop("width", None), *size]
    if isinstance(size, (list, tuple)):
        to_square = True
        size = size[0] if len(size) == 2 and size[0] == size[1] else None
    return size if is_integer(size) else None, not to_square


def _statistics(config):
    """Return mean and standard deviation of pixels from 0 to 1, as tuples.

    All steps after the crop are linear; together they are one normalization.
    """
    given = [_for_channels(config[k]) for k in ("image_mean", "image_std")]
    mean, std = given if config["do_normalize"] else (np.zeros(3), np.ones(3))
    if config["include_top"]:
        # Pixels for the classifier are divided once more.
        std = std * given[1]
    factor, offset = 255.0, 0.0
    if config["do_rescale"]:
        factor *= config["rescale_factor"]
        offset = float(config["rescale_offset"])
    mean, std = mean / factor + offset / factor, std / factor
    return tuple(mean.tolist()), tuple(std.tolist())


def _for_channels(value):
    """Return the numbers of three channels; one is that of all of them."""
    return np.broadcast_to(np.asarray_chkfinite(value, float), 3)
