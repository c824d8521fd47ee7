"""Commands that report what is installed, cached and missing."""

import dataclasses
import importlib.metadata
import os
import pathlib
import platform
import sys

import typer
from packaging.requirements import Requirement

from keras_bridgetower.apps.cli import errors
from keras_bridgetower.apps.cli import frameworks
from keras_bridgetower.apps.cli import output
from keras_bridgetower.apps.cli.models import AsJson
from keras_bridgetower.files import keras_home
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.version import __version__

DISTRIBUTION = "keras-bridgetower"
PACKAGES = (
    *("keras", "keras-hub", "tensorflow", "jax", "torch"),
    *("numpy", "pillow", "tokenizers", "transformers"),
)


def doctor(context: typer.Context, as_json: AsJson = False):
    """Report the backend, and what is installed, cached and missing.

    Exits with 1 if no command that needs a model could run.
    """
    backend, reason = frameworks.chosen_backend()
    problems, devices = [], []
    with output.status("Looking for devices"):
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
        "presets": [n for n, p in PRESETS.items() if p.handle is None],
        "problems": problems,
    }
    output.show(as_json, value, ("what", "found"), list(_rows(value)))
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

    Requirements whose marker excludes this Python or platform do not count.

    Returns:
        dict from the name of an extra to a list of str. Empty if this
        package is not installed.
    """
    try:
        metadata = importlib.metadata.metadata(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return {}
    missing = {name: [] for name in metadata.get_all("Provides-Extra") or ()}
    for line in metadata.get_all("Requires-Dist") or ():
        required = Requirement(line)
        if required.marker is None or required.marker.evaluate({"extra": ""}):
            continue
        version = installed_version(required.name)
        if version and required.specifier.contains(version, prereleases=True):
            continue
        text = required.name
        if version:
            text += f"{required.specifier} (found {version})"
        for extra, lacking in missing.items():
            if required.marker.evaluate({"extra": extra}):
                lacking.append(text)
    return missing


def caches():
    """List the folders of downloaded, converted and compiled files.

    Returns:
        list of dicts of `holds`, `path` and `bytes`.
    """
    home = pathlib.Path.home()
    cache = pathlib.Path(os.environ.get("XDG_CACHE_HOME") or home / ".cache")
    hub = os.environ.get("HF_HUB_CACHE") or (
        pathlib.Path(os.environ.get("HF_HOME") or cache / "huggingface") / "hub"
    )
    kaggle = os.environ.get("KAGGLEHUB_CACHE") or home / ".cache" / "kagglehub"
    places = {
        "presets from Hugging Face": hub,
        "presets from Kaggle": kaggle,
        "converted weights": keras_home() / "keras_bridgetower",
        "programs that JAX compiled": frameworks.compiled_folder(),
    }
    return [
        {"holds": holds, "path": str(path), "bytes": _size(path)}
        for holds, path in places.items()
    ]


def _size(folder):
    """Count the bytes of the files below a folder, without links."""
    total = 0
    for parent, _, files in os.walk(folder):
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                total += os.path.getsize(path)
    return total


def _rows(value):
    """Yield the report as rows of a table."""
    yield "keras-bridgetower", value["version"]
    yield "python", value["python"]
    yield "platform", value["platform"]
    backend = value["backend"]
    yield "backend", f"{backend['name']} ({backend['because']})"
    for device in value["devices"] or ["none found"]:
        yield "device", device
    for name, version in value["packages"].items():
        yield name, version or "not installed"
    for name, lacking in value["extras"].items():
        line = f'pip install "{DISTRIBUTION}[{name}]"'
        missing = f"lacks {', '.join(lacking)}: {line}"
        yield f"extra {name}", missing if lacking else "installed"
    for cache in value["caches"]:
        size = f"{cache['bytes'] / 1e6:,.1f} MB"
        yield cache["holds"], f"{size} in {cache['path']}"
    for name in value["presets"]:
        yield "preset in the package", name
    for problem in value["problems"]:
        yield "PROBLEM", problem


def presets(as_json: AsJson = False):
    """List the presets that can be opened by name."""
    rows = [
        (
            preset.name,
            ", ".join(preset.heads) or "none",
            f"{preset.parameters:,}",
            preset.image_size,
            preset.handle or "in the package",
            f"{preset.description} It knows {preset.knows}.",
        )
        for preset in PRESETS.values()
    ]
    columns = ("preset", "heads", "parameters", "image size", "where")
    value = [dataclasses.asdict(preset) for preset in PRESETS.values()]
    output.show(as_json, value, (*columns, "description"), rows)
