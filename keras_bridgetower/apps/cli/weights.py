"""Commands for presets and weights; and `doctor`."""

import contextlib
import dataclasses
import enum
import importlib.metadata
import os
import pathlib
import platform
import stat
import sys
import warnings

import typer
from packaging.requirements import Requirement

from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import models
from keras_bridgetower.apps.cli import output
from keras_bridgetower.files import keras_home
from keras_bridgetower.presets import table
from keras_bridgetower.version import __version__

# Keys of `models.exporting.exported.FORMATS`, which imports Keras.
Format = enum.StrEnum(
    "Format", "transformers onnx openvino torch tf_saved_model litert"
)
# PyTorch writes the others.
BY_TENSORFLOW = (Format.tf_saved_model, Format.litert)


def convert(
    context: typer.Context,
    source: pathlib.Path,
    destination: pathlib.Path,
    task: str | None = None,
    answers: list[pathlib.Path] | None = None,
    text_heads: models.CountOrNone = None,
    ignore: list[str] | None = None,
    allow_nonfinite: bool = False,
    verify: bool = False,
    as_json: models.AsJson = False,
):
    """Convert weights of another library to a preset folder.

    Every head of the source is kept.

    Args:
        source: `transformers` folder, or checkpoint file of the authors.
        destination: Folder to write, which must be new.
        task: Refuse a source without this head, such as itm or vqa.
        answers: File of the answers of a VQA head. May be given again.
        text_heads: Attention heads of the text encoder.
        ignore: Pattern of tensors that may be left out. May be given again.
        allow_nonfinite: Allow NaN and infinity.
        verify: Open the new preset and compare every tensor with the source.
    """
    with output.progress("Converting") as update:
        frameworks.load(context.obj, first="torch")
        from keras_bridgetower.convert import by_hand

        found = by_hand.to_preset(
            source,
            destination,
            task,
            answers or (),
            text_heads,
            ignore or (),
            allow_nonfinite,
            verify,
            update,
        )
    _show(as_json, found)


def export(
    context: typer.Context,
    preset: models.PresetArgument,
    destination: pathlib.Path,
    format: Format = Format.transformers,
    task: str | None = None,
    part: str | None = None,
    int8: pathlib.Path | None = None,
    text: list[str] | None = None,
    verify: bool = False,
    as_json: models.AsJson = False,
):
    """Export a preset for programs without Keras, or for transformers.

    A folder for onnx or openvino has a `run.py`, which runs the model without
    Keras. A folder for transformers has every head; heads that transformers
    does not know are in head.safetensors.

    Args:
        preset: Preset to export.
        destination: New folder, or a file with the suffix of the format, such
            as vqa.onnx.
        task: Task to export, such as vqa. By default the one of the preset's
            name, or that it was saved as.
        part: Only image_tower, text_tower or fusion, for programs that keep
            what the towers return.
        int8: Compute in int8, with the ranges of these samples: a folder of
            pictures, or a table (.csv, .jsonl) as `predict` reads it.
        text: Text for every picture of --int8. May be given again.
        verify: Run both on the same random input.
    """
    models.check_preset(preset)
    whole = format == Format.transformers
    if (whole and (task or part)) or (verify and not whole):
        raise errors.UsageError(
            "`--task` and `--part` need another `--format` than transformers, "
            "and `--verify` needs that one."
        )
    if (text and not int8) or (int8 and format not in ("onnx", "openvino")):
        raise errors.UsageError(
            "`--text` needs `--int8`, which needs `--format` onnx or openvino."
        )
    if not whole:
        # Unless the user chose one, take a backend that can write the format.
        backend = "tensorflow" if format in BY_TENSORFLOW else "torch"
        os.environ.setdefault("KERAS_BACKEND", backend)
    with output.progress("Exporting"):
        frameworks.load(context.obj, first="torch")
        if whole:
            from keras_bridgetower.convert import by_hand

            found = by_hand.to_transformers(preset, destination, verify)
        else:
            found = _export_task(
                preset, destination, str(format), task, part, int8, text or ()
            )
    _show(as_json, found)


def _export_task(preset, destination, format, task, part, int8, texts):
    from keras_bridgetower.apps.predict.calibration import calibration_samples
    from keras_bridgetower.tasks import by_name

    opened = by_name.open_task(preset, task)
    samples = calibration_samples(opened, int8, texts) if int8 else None
    opened.export(
        destination, format, verbose=False, part=part, calibration=samples
    )
    found = {
        "task": type(opened).__name__,
        "part": part or "all",
        "format": format,
        "written": str(destination),
    }
    if int8:
        found["calibrated on"] = len(next(iter(samples.values())))
    return found


def _show(as_json, found):
    output.show(as_json, found, ("what", "found"), list(found.items()))


def quantize(
    context: typer.Context,
    preset: models.PresetArgument,
    destination: pathlib.Path,
    task: str | None = None,
    as_json: models.AsJson = False,
):
    """Write a preset whose matrices are 8-bit integers.

    Its weights take about a quarter of the space of float32. It opens on every
    backend, and computes in floats. Evaluate it before you use it.

    Args:
        preset: Preset to quantize.
        destination: Folder to write, which must be new.
        task: Task whose heads are kept, such as vqa. By default the one of the
            preset's name, or that it was saved as.
    """
    models.check_preset(preset)
    with output.progress("Quantizing"):
        frameworks.load(context.obj)
        from keras.quantizers import Int8QuantizationConfig

        from keras_bridgetower.backend.layer_records import check_not_quantized
        from keras_bridgetower.tasks import by_name

        opened = by_name.open_task(preset, task, "quantize")
        check_not_quantized(opened, "`quantize`")
        with warnings.catch_warnings():
            # Other kinds of layers, such as norms, are not quantized.
            warnings.filterwarnings("ignore", "Layer .* does not have a")
            # A few large activations would leave others less than 8 bits.
            opened.quantize(config=Int8QuantizationConfig(None, None))
        opened.save_to_preset(destination)
    weights = [path.stat().st_size for path in destination.glob("*.h5")]
    found = {
        "task": type(opened).__name__,
        "parameters": opened.count_params(),
        "weight_bytes": sum(weights),
        "written": str(destination),
    }
    _show(as_json, found)


DISTRIBUTION = "keras-bridgetower"
PACKAGES = (
    *("keras", "keras-hub", "tensorflow", "jax", "torch"),
    *("numpy", "pillow", "tokenizers", "transformers"),
)


def doctor(context: typer.Context, as_json: models.AsJson = False):
    """Report the backend, and what is installed, cached and missing.

    Exits with 1 if no command that needs a model could run.
    """
    backend, reason = frameworks.chosen_backend()
    problems, devices = [], []
    with output.progress("Looking for devices"):
        try:
            frameworks.load(context.obj)
            from keras_bridgetower.distribution.distribute import device_names

            devices = device_names()
        # The rest of the report is still useful.
        except Exception as error:
            problems.append(errors.line(error, backend))
    value = {
        "version": __version__,
        "python": f"{platform.python_version()} at {sys.executable}",
        "platform": platform.platform(),
        "backend": {"name": backend, "because": reason},
        "devices": devices,
        "packages": {name: installed_version(name) for name in PACKAGES},
        "extras": extras(),
        "caches": caches(),
        "presets": [n for n, p in table.PRESETS.items() if not p.handle],
        "missing_presets": table.not_installed(),
        "problems": problems,
    }
    output.show_lines(as_json, value, _report(value))
    if problems:
        raise typer.Exit(errors.FAILED)


def installed_version(name):
    """Return the version of a package, or None if it is not installed."""
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def extras():
    """List the missing requirements of each extra of the package.

    Returns:
        dict from the name of an extra to a list of str. Empty if this package
        is not installed.
    """
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return {}
    names = metadata.get_all("Provides-Extra") or ()
    missing = {name: _lacking(DISTRIBUTION, name) for name in names}
    # It is in no metadata, as it asks for an older Pillow.
    if "demo" in missing and not installed_version("gradio"):
        missing["demo"].append("gradio")
    return missing


def _lacking(distribution, extra):
    """List the missing requirements of an extra of a distribution."""
    found = []
    for line in importlib.metadata.requires(distribution) or ():
        required = Requirement(line)
        name, marker = required.name, required.marker
        added = marker and marker.evaluate({"extra": extra})
        if not added or marker.evaluate({"extra": ""}):
            continue
        version = installed_version(name)
        if version is None:
            found.append(name)
        elif not required.specifier.contains(version, prereleases=True):
            found.append(f"{name}{required.specifier} (found {version})")
        else:
            # Such as `jax[tpu]`.
            for inner in sorted(required.extras):
                found += _lacking(name, inner)
    return found


def caches():
    """List the folders of downloaded, converted and compiled files."""
    from huggingface_hub.constants import HF_HUB_CACHE
    from kagglehub.config import get_cache_folder

    from keras_bridgetower.apps import exported

    places = {
        "presets from Hugging Face": HF_HUB_CACHE,
        "presets from Kaggle": get_cache_folder(),
        "converted weights": keras_home() / "keras_bridgetower",
        "shards of object stores": keras_home() / "keras_bridgetower_shards",
        "programs that JAX compiled": frameworks.compiled_folder(),
        "exported presets": exported.folder(),
    }
    return [
        {"holds": holds, "path": str(path), "bytes": _size(path)}
        for holds, path in places.items()
    ]


def _size(folder):
    """Count the bytes of the files below a folder, without links."""
    total = 0
    for path in pathlib.Path(folder).rglob("*"):
        # Another process may delete files of a cache.
        with contextlib.suppress(FileNotFoundError):
            state = path.lstat()
            total += state.st_size if stat.S_ISREG(state.st_mode) else 0
    return total


def _report(value):
    """Return the report as sentences, with advice at the end."""
    backend, because = value["backend"].values()
    lacking, problems = value["extras"].items(), value["problems"]
    lists = {
        "Devices": value["devices"] or ["none"],
        "Packages": [f"{n} {found}" for n, found in value["packages"].items()],
        "Extras that are installed": [n for n, lacks in lacking if not lacks],
        "Presets that open offline": value["presets"],
    }
    lines = [
        f"keras_bridgetower {value['version']} runs on Python "
        f"{value['python']}, on {value['platform']}.",
        f"Keras uses the backend {backend} ({because}).",
        *(f"{what}: {', '.join(names)}." for what, names in lists.items()),
        *(f"The extra {n} lacks {', '.join(x)}." for n, x in lacking if x),
    ]
    for cache in value["caches"]:
        size = f"{cache['bytes'] / 1e6:,.1f} MB"
        lines.append(f"The {cache['holds']} take {size} in {cache['path']}.")
    for start, command in value["missing_presets"].items():
        lines.append(f"To install {start}*, in a clone: `{command}`.")
    ready = ['All is ready for `keras-bridgetower ask PICTURE "..."`.']
    return lines + ([f"No model can run: {one}" for one in problems] or ready)


def presets(as_json: models.AsJson = False):
    """List the presets that can be opened by name.

    `--json` prints more of each, such as its heads and image size.
    """
    rows = [
        (
            preset.name,
            f"{preset.parameters / 1e6:.3g} M",
            "download" if preset.handle else "installed",
            preset.description,
        )
        for preset in table.PRESETS.values()
    ]
    value = [dataclasses.asdict(preset) for preset in table.PRESETS.values()]
    columns = ("preset", "parameters", "where", "what it does")
    output.show(as_json, value, columns, rows)
    for start, command in table.not_installed().items():
        output.note(f"To install {start}*, in a clone: `{command}`.")
