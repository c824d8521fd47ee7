"""Opens presets by name or path, and writes new preset folders."""

import json
import os
import pathlib
import warnings

import safetensors.numpy

from keras_bridgetower import object_stores
from keras_bridgetower.backend import layer_records
from keras_bridgetower.files import write_folder
from keras_bridgetower.presets import hub
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets import stores
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.folder import CONFIG
from keras_bridgetower.presets.folder import PresetFolder
from keras_bridgetower.presets.safe_files import check_safetensors
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.presets.table import did_you_mean

HEADS = "heads.json"
# Tensors of a foreign checkpoint that the architecture never reads.
EXTRA = "extra.safetensors"
# Functions of `convert`, a higher layer, which presets may not import.
_CONVERSIONS = {}


def register_conversions(open_foreign, export, open_encoders):
    """Register the functions that open and write other libraries' weights.

    Args:
        open_foreign: callable that takes a path and a dict of checksums, and
            returns a `PresetFolder`.
        export: callable that takes a model and the path of a new folder.
        open_encoders: `convert.unimodal.open_encoders`.
    """
    _CONVERSIONS.update(
        open_foreign=open_foreign, export=export, open_encoders=open_encoders
    )


def export(model, path):
    """Write a backbone or a task as a `transformers` folder."""
    _CONVERSIONS["export"](model, path)


def open_encoders(*args):
    """Open two encoders, as `convert.unimodal.open_encoders`."""
    return _CONVERSIONS["open_encoders"](*args)


def resolve(preset):
    """Return the path of a preset, after a check of all its files.

    Args:
        preset: as in `open_preset`.

    Returns:
        str: the path of the preset folder.
    """
    folder = open_preset(preset)
    folder.finish_check()
    return str(folder.root)


def open_preset(preset, revision=None):
    """Find and open a preset, to load all parts of a model from it.

    Args:
        preset: a known name, a local folder, a checkpoint file of the
            authors, a handle `hf://user/model` or
            `kaggle://user/model/keras/variant`, the URL of an object store
            such as `s3://bucket/preset`, or a `PresetFolder`.
        revision: str, branch, tag or commit of a handle's repository.

    Returns:
        `PresetFolder`. A handle is downloaded, and weights of another library
        are converted, if they are not cached. Small files are checked against
        the manifest; `finish_check` waits for the large ones. A warning is
        given if there is no manifest.

    Raises:
        ValueError: there is no such preset, files differ from the manifest
            (`PresetError`), or foreign weights do not fit
            (`ConversionError`).
    """
    if isinstance(preset, PresetFolder):
        if revision is None:
            return preset
        preset = preset.root  # Raises below: a folder has no revisions.
    name = str(preset)
    known = PRESETS.get(name)
    handle = known.handle if known and known.handle else name
    path = pathlib.Path(hub.fetch(handle, name, revision)).absolute()
    if known and not known.handle:
        path = known.path
    if not path.is_file() and not os.path.lexists(path / CONFIG):
        raise ValueError(
            f"{did_you_mean(name)}`preset` must be one of the names "
            f"{sorted(PRESETS)}, the path of a folder with a config.json or of "
            "a checkpoint of the authors, or a handle such as "
            f"'hf://user/model'. Received: preset={object_stores.hide(name)!r}"
        )
    if path.is_file() or not needed_files.is_keras(path):
        open_foreign = _CONVERSIONS["open_foreign"]
        folder = open_foreign(path, hub.published(handle, revision))
    else:
        folder = PresetFolder(path)
    if not folder.has_manifest:
        warnings.warn(
            f"The preset {str(path)!r} has no {manifest.MANIFEST}, so its "
            "files could not be verified. `save_to_preset` of the loaded model "
            "writes a preset with a manifest.",
            # The caller of the `from_preset` of a task or backbone.
            stacklevel=4,
        )
    return folder


def write(folder, save, name="preset_dir"):
    """Write a preset folder and its manifest as a whole or not at all.

    Args:
        folder: path of the new folder, or its URL in an object store.
        save: callable that gets a folder and writes the files into it.
        name: str, the argument with the folder, for errors.

    Raises:
        FolderExists: the folder exists.
    """

    def write_here(path):
        write_folder(path, save, manifest.write, name)

    if object_stores.is_url(folder):
        stores.write(folder, write_here, name)
    else:
        write_here(folder)


def drop_frozen_state(folder):
    """Remove values from configurations that only training needs."""

    def without(values):
        if isinstance(values, dict):
            kept = (k for k in values if k not in layer_records.STATE)
            return {k: without(values[k]) for k in kept}
        return values

    for file in (CONFIG, weights_file.TASK):
        path = pathlib.Path(folder, file)
        if path.exists():
            values = json.loads(path.read_text())
            if values != without(values):
                path.write_text(json.dumps(without(values), indent=4))


def write_backbone(backbone, save, folder, max_shard_size):
    """Write a backbone's preset folder, with its extra tensors."""

    def write_files(path):
        save(path, max_shard_size)
        drop_frozen_state(path)
        weights_file.make_dense(pathlib.Path(path, weights_file.WEIGHTS))
        if backbone.extra:
            # `save_file` writes a file that only its owner can read.
            tensors = safetensors.numpy.save(dict(backbone.extra))
            pathlib.Path(path, EXTRA).write_bytes(tensors)

    write(folder, write_files)


def load_backbone(backbone, folder):
    """Load the weights of a `PresetFolder` while they are checked."""
    try:
        weights_file.load(backbone, folder)
    finally:
        # A changed file may fail in any way; this error comes first.
        folder.finish_check()


def read_extra(folder):
    """Read the extra tensors of a `PresetFolder`, by name."""
    if not folder.has(EXTRA):
        return {}
    path = folder.path(EXTRA)
    with folder.reading(EXTRA):
        check_safetensors(path)
        return safetensors.numpy.load_file(path)


def write_json(folder, file, values):
    """Write plain values into a preset folder."""
    text = json.dumps(values, indent=2)
    (pathlib.Path(folder) / file).write_text(text + "\n")
