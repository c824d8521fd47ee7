"""Converts a checkpoint or exports a preset, and summarizes the result.

`from_preset` converts automatically. The command line calls these functions to
choose the folder, to pass the answers of a VQA checkpoint, and to compare the
result with the source.
"""

import pathlib

import keras
import numpy as np
import safetensors

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.convert.transformers_folder import CLASSES
from keras_bridgetower.files import parse_json
from keras_bridgetower.files import read_text
from keras_bridgetower.metrics.vqa import answer_list
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import converting


def to_preset(
    source,
    destination,
    head=None,
    answers=(),
    text_heads=None,
    ignore=(),
    allow_nonfinite=False,
    verify=False,
    progress=lambda done, count: None,
):
    """Convert weights of another library to a preset folder.

    Args:
        source: path of a `transformers` folder, or of a checkpoint file of
            the authors.
        destination: path of a folder that does not exist yet.
        head: str, name of a head that the source must have, such as `"itm"`.
        answers: paths of files with the answers of a VQA head, see
            `read_answers`. This and the next two are for a checkpoint file.
        text_heads: int, attention heads of the text encoder.
        ignore: regular expressions of the tensors that may be left out.
        allow_nonfinite: bool, whether weights may be NaN or infinite.
        verify: bool, whether to compare every tensor of the new preset with
            the source.
        progress: callable of the number of finished rules and of all.

    Returns:
        dict from labels to results: counts, heads and what there is beside
        them.

    Raises:
        ConversionError: the weights cannot be read or do not fit.
        ValueError: there is no source, it lacks the head, or `destination`
            exists.
    """
    source = pathlib.Path(source)
    settings = {}
    if source.is_file():
        settings = dict(
            text_heads=text_heads,
            ignore=tuple(ignore),
            answers=read_answers(*answers) if answers else None,
        )
    checkpoint = cache.open_checkpoint(source, **settings)
    if head and head not in checkpoint.heads:
        raise ValueError(
            f"`--task` must be a head of the source, which has "
            f"{', '.join(checkpoint.heads) or 'none'}. "
            f"Received: --task {head}"
        )
    count = len(checkpoint.rules)
    checkpoint.save_to_preset(
        destination,
        allow_nonfinite=allow_nonfinite,
        progress=lambda done: progress(done, count),
    )
    return _summary(checkpoint, destination, verify)


def to_transformers(preset, destination, verify=False):
    """Export a preset to a folder that `transformers` opens.

    Heads that transformers lacks are written to head.safetensors.

    Args:
        preset: as in `from_preset`.
        destination: path of a folder that does not exist yet.
        verify: bool, whether to run both on the same random input.

    Returns:
        dict from labels to results.

    Raises:
        ConversionError: transformers cannot run this architecture.
        ValueError: there is no such preset, or `destination` exists.
    """
    parts = export.parts_of_preset(preset)
    export.write(parts, destination, name="destination")
    folder = pathlib.Path(destination)
    file = safetensors.safe_open(folder / export.WEIGHTS, framework="np")
    shapes = [file.get_slice(key).get_shape() for key in list(file.keys())]
    classes = [CLASSES[name] for name in parts.values if name in CLASSES]
    found = {
        "tensors": len(shapes),
        "parameters": f"{sum(int(np.prod(s)) for s in shapes):,}",
        "classes": ", ".join(classes) or "BridgeTowerModel",
        "processor files": "yes" if parts.tokenizer else "no tokenizer",
    }
    if verify:
        difference = pooled_difference(parts.backbone, folder)
        found["max |difference|"] = (
            "not done: transformers is not installed"
            if difference is None
            else f"{difference:.1e}"
        )
    return found


def _summary(checkpoint, destination, verify):
    parts = export.parts_of_preset(destination)
    layers = [parts.backbone, *(parts.heads[name] for name in parts.heads)]
    found = {
        "tensors in the source": len(checkpoint.tensors.shapes),
        "of them read by nothing": len(checkpoint.unread),
        "heads": ", ".join(checkpoint.heads) or "none",
        "parameters": f"{sum(x.count_params() for x in layers):,}",
        "image size": parts.backbone.image_size,
        "tokenizer": "yes" if parts.tokenizer else "none found",
    }
    if verify:
        _check_equal(checkpoint, parts, layers)
        found["tensors equal to the bit"] = len(checkpoint.unread) + sum(
            len(rule.keys) for rule in checkpoint.rules
        )
    return found


def _check_equal(checkpoint, parts, layers):
    """Check that the preset has every tensor of the source unchanged."""
    tensors, different = checkpoint.tensors, []
    variables = variables_by_path(*layers, encoder=parts.backbone.image_encoder)
    for rule in checkpoint.rules:
        saved = [
            keras.ops.convert_to_numpy(variables[k]) for k in rule.variables
        ]
        read = [tensors.read(key) for key in rule.keys]
        values = rule.layout.load(read, [array.shape for array in saved])
        for array, value in zip(saved, values, strict=True):
            value = value.astype("float32")
            if not np.array_equal(array, value, equal_nan=True):
                different += rule.keys
    for key in checkpoint.unread:
        kept = parts.backbone.extra[key]
        if not np.array_equal(kept, tensors.read(key), equal_nan=True):
            different.append(key)
    if different:
        raise ConversionError(
            "The preset differs from its source.", tensors.path, different
        )


def pooled_difference(backbone, folder):
    """Compute the largest difference of pooled outputs from transformers'.

    PyTorch must be imported before TensorFlow, or it can crash.

    Args:
        backbone: a `BridgeTowerBackbone`.
        folder: path of a folder that `transformers` opens. Its cross-modal
            layers run with the backbone's epsilon.

    Returns:
        float, or None if transformers or PyTorch is not installed.
    """
    try:
        import torch
        import transformers
    except ImportError:
        return None
    side, rows = backbone.image_size, backbone.text_encoder.vocabulary_size
    rng = np.random.default_rng(0)
    images = rng.normal(size=(2, side, side, 3)).astype("float32")
    ids = rng.integers(min(4, rows - 1), rows, (2, 12)).astype("int32")
    mask = np.ones_like(ids)
    features = {"images": images, "token_ids": ids, "padding_mask": mask}
    ours = backbone(features, training=False)["pooled"]
    model = transformers.BridgeTowerModel.from_pretrained(folder).eval()
    set_cross_modal_epsilon(model, backbone.fusion.layer_norm_epsilon)
    with torch.inference_mode():
        theirs = model(
            input_ids=torch.tensor(ids, dtype=torch.int64),
            attention_mask=torch.tensor(mask),
            pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)),
        ).pooler_output.numpy()
    return float(np.abs(keras.ops.convert_to_numpy(ours) - theirs).max())


def set_cross_modal_epsilon(model, epsilon):
    """Set the epsilon of the cross-modal layers of a transformers model."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) and "_layers." in name:
            module.eps = epsilon


def read_answers(*paths):
    """Read the classes of a head in the order of their ids.

    Args:
        *paths: path of a JSON list of answers, of a JSON object that maps
            answers to ids, or of a text file with one answer on each line. Or
            the paths of VQAv2's annotation files, training before validation.

    Returns:
        list of str.

    Raises:
        ConversionError: the file has none of these forms.
    """
    contents = [_read(pathlib.Path(path)) for path in paths]
    first = contents[0]
    if isinstance(first, dict) and "annotations" in first:
        return answer_list(*contents)
    if isinstance(first, dict) and set(first.values()) == set(
        range(len(first))
    ):
        first = sorted(first, key=first.get)
    if (
        len(contents) > 1
        or not isinstance(first, list)
        or not all(isinstance(answer, str) for answer in first)
    ):
        raise ConversionError(
            "Answers must be a list of strings, an object from answers to "
            "ids 0, 1, ..., one answer a line, or VQAv2 annotations.",
            paths[0],
        )
    return first


def _read(path):
    with converting("A file of answers must be readable", path):
        text = read_text(path)
        return text.splitlines() if path.suffix == ".txt" else parse_json(text)
