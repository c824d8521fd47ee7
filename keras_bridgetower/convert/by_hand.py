"""Converts a checkpoint or exports a preset, and says what came of it.

`from_preset` converts by itself. Whoever does it by hand gets a folder in a
chosen place, the answers of a VQA checkpoint, and a comparison with the source.
"""

import contextlib
import pathlib
import tempfile
import warnings

import keras
import numpy as np
import safetensors

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.convert import transfer
from keras_bridgetower.convert.errors import ConversionError
from keras_bridgetower.convert.transformers_folder import CLASSES
from keras_bridgetower.files import parse_json
from keras_bridgetower.files import read_text
from keras_bridgetower.metrics.vqa import answer_list


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
        head: str, which the source must have, such as `"itm"`.
        answers: paths of files with the answers of a VQA head, see
            `read_answers`. This and the next two are for a file.
        text_heads: int, attention heads of the text encoder.
        ignore: patterns of tensors that may be left out.
        allow_nonfinite: bool, whether weights may be NaN or infinite.
        verify: bool, whether to open the new preset and compare every tensor
            with the source.
        progress: callable of the number of tensors done and of all.

    Returns:
        dict from words to what was found: counts, heads, and the difference
        to transformers' outputs.

    Raises:
        ConversionError: weights that cannot be read or do not fit.
        ValueError: no source, or one without the head, or `destination`
            exists.
    """
    source = pathlib.Path(source)
    if not source.exists():
        raise ValueError(
            "`source` must exist: a `transformers` folder or a checkpoint "
            f"file of the authors. Received: {str(source)!r}"
        )
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
            f"`--task` must be a head of the source, which holds "
            f"{', '.join(checkpoint.heads) or 'none'}. "
            f"Received: --task {head}"
        )
    count = len(checkpoint.rules)
    checkpoint.save_to_preset(
        destination,
        allow_nonfinite=allow_nonfinite,
        progress=lambda done: progress(done, count),
    )
    return _summary(checkpoint, source, destination, verify)


def to_transformers(preset, destination, verify=False):
    """Export a preset to a folder that `transformers` opens.

    Every head that transformers knows goes into one file, the others into
    head.safetensors beside it.

    Args:
        preset: as `from_preset` takes it.
        destination: path of a folder that does not exist yet.
        verify: bool, whether to run both on the same random input.

    Returns:
        dict from words to what was found.

    Raises:
        ConversionError: transformers cannot run this architecture.
        ValueError: no such preset, or `destination` exists.
    """
    parts = export.parts_of_preset(preset)
    export.write(parts, destination)
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
        found["max |difference|"] = difference_text(difference)
    return found


def _summary(checkpoint, source, destination, verify):
    parts = export.parts_of_preset(destination)
    layers = [parts.backbone, *(parts.heads[name] for name in parts.heads)]
    try:
        difference = _difference(parts, source)
        check = difference_text(difference)
    except ConversionError:
        check = "not done: transformers cannot run this architecture"
    found = {
        "tensors in the source": len(checkpoint.tensors.shapes),
        "of them read by nothing": len(checkpoint.unread),
        "heads": ", ".join(checkpoint.heads) or "none",
        "parameters": f"{sum(x.count_params() for x in layers):,}",
        "image size": parts.backbone.image_size,
        "tokenizer": "yes" if parts.tokenizer else "none found",
        "self-check, max |difference|": check,
    }
    if verify:
        found["tensors equal to the bit"] = _equal_tensors(checkpoint, parts)
    return found


def _difference(parts, source):
    """Pooled outputs beside transformers' for the same random input."""
    if source.is_dir():
        return pooled_difference(parts.backbone, source)
    # The authors' names are unknown there: by way of our export.
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        exported = pathlib.Path(folder) / "exported"
        export.write(parts, exported)
        return pooled_difference(parts.backbone, exported)


def _equal_tensors(checkpoint, parts):
    """Count the tensors of the source that stand in the preset unchanged."""
    variables = transfer.variables_of(
        parts.backbone,
        *(parts.heads[name] for name in parts.heads),
        encoder=parts.backbone.image_encoder,
    )
    equal = 0
    for rule in checkpoint.rules:
        shapes = [tuple(variables[path].shape) for path in rule.variables]
        read = [checkpoint.tensors.read(key) for key in rule.keys]
        for path, value in zip(
            rule.variables, rule.layout.load(read, shapes), strict=True
        ):
            saved = keras.ops.convert_to_numpy(variables[path])
            if not np.array_equal(
                saved, value.astype("float32"), equal_nan=True
            ):
                raise _differs(checkpoint, rule.keys)
        equal += len(rule.keys)
    for key in checkpoint.unread:
        kept = parts.backbone.extra[key]
        if not np.array_equal(kept, checkpoint.tensors.read(key)):
            raise _differs(checkpoint, [key])
    return equal + len(checkpoint.unread)


def _differs(checkpoint, keys):
    return ConversionError(
        "The preset differs from its source.", checkpoint.tensors.path, keys
    )


def pooled_difference(backbone, folder):
    """Largest difference of the pooled outputs for the same random input.

    Import PyTorch before TensorFlow, after which importing it can crash.

    Args:
        backbone: a `BridgeTowerBackbone`.
        folder: path of a folder that `transformers` opens. Its cross-modal
            layers run with the backbone's epsilon.

    Returns:
        float, or None where transformers or PyTorch is not installed.
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
    with _without_bar(transformers.utils.logging):
        model = transformers.BridgeTowerModel.from_pretrained(folder).eval()
    set_cross_modal_epsilon(model, backbone.fusion.layer_norm_epsilon)
    with torch.inference_mode():
        theirs = model(
            input_ids=torch.tensor(ids, dtype=torch.int64),
            attention_mask=torch.tensor(mask),
            pixel_values=torch.tensor(images.transpose(0, 3, 1, 2)),
        ).pooler_output.numpy()
    return float(np.abs(keras.ops.convert_to_numpy(ours) - theirs).max())


@contextlib.contextmanager
def _without_bar(settings):
    """A context in which transformers shows no progress bar."""
    shown = settings.is_progress_bar_enabled()
    settings.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            settings.enable_progress_bar()


def set_cross_modal_epsilon(model, epsilon):
    """Run the cross-modal layers of a transformers model with an epsilon."""
    import torch

    for name, module in model.named_modules():
        if isinstance(module, torch.nn.LayerNorm) and "_layers." in name:
            module.eps = epsilon


def difference_text(difference):
    """The difference for a table."""
    if difference is None:
        return "not done: transformers is not installed"
    return f"{difference:.1e}"


def read_answers(*paths):
    """Read the classes of a head in the order of their ids.

    Args:
        *paths: path of one file: a JSON list of answers, a JSON object that
            maps answers to ids, or a text file with one answer on each line.
            Or the paths of VQAv2's annotation files, training before
            validation.

    Returns:
        list of str.

    Raises:
        ConversionError: the file has none of these forms.

    Example:

    ```python
    read_answers("answers.json")
    ```
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
    try:
        text = read_text(path)
        return text.splitlines() if path.suffix == ".txt" else parse_json(text)
    except (OSError, ValueError) as error:
        raise ConversionError(
            f"A file of answers must be readable: {error!s:.200}", path
        ) from error
