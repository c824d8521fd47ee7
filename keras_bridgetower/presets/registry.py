"""The presets that are known by name, and how a name becomes a folder."""

import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile

import keras
import keras_hub

from keras_bridgetower.version import __version__

MANIFEST = "manifest.json"
_HERE = pathlib.Path(__file__).parent


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is known about a preset before it is opened.

    Args:
        name: str, its name in `from_preset`.
        task: str, the task class whose head it holds.
        description: str, one sentence.
        parameters: int, number of parameters.
        image_size: int, side of its images in pixels.
    """

    name: str
    task: str
    description: str
    parameters: int
    image_size: int


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="bridgetower_tiny_easy_vqa",
            task="BridgeTowerVQA",
            description="Trained from scratch on easy-VQA; runs offline.",
            parameters=846_158,
            image_size=64,
        ),
    )
}


class PresetsOf:
    """Class attribute: the known presets of a class, name to `Preset`."""

    def __get__(self, instance, cls):
        return {
            name: preset
            for name, preset in PRESETS.items()
            if cls.__name__ in (preset.task, "BridgeTowerBackbone")
        }


def _from_hugging_face(handle):
    try:
        import huggingface_hub
    except ImportError as error:
        raise ImportError(
            "A preset 'hf://...' needs `pip install huggingface_hub`."
        ) from error
    return huggingface_hub.snapshot_download(handle)


def _from_kaggle(handle):
    import kagglehub  # A dependency of KerasHub.

    return kagglehub.model_download(handle)


DOWNLOADS = {"hf": _from_hugging_face, "kaggle": _from_kaggle}


def resolve(preset):
    """Where a preset lies; a local one is checked against its manifest.

    Args:
        preset: a known name, a local folder, or a handle `hf://user/model`
            or `kaggle://user/model/keras/variant`.

    Returns:
        str: a folder. A handle's files are downloaded, or found in the cache.

    Raises:
        ValueError: nothing of that name, or files that differ from the
            manifest.

    Example:

    ```python
    resolve("bridgetower_tiny_easy_vqa")
    ```
    """
    preset = os.fspath(preset)
    scheme, _, handle = preset.rpartition("://")
    if scheme in DOWNLOADS:
        folder = pathlib.Path(DOWNLOADS[scheme](handle))
    else:
        folder = _HERE / preset if preset in PRESETS else pathlib.Path(preset)
    if not (folder / "config.json").is_file():
        raise ValueError(
            "`preset` must be one of the names "
            f"{sorted(PRESETS)}, the path of a preset folder (with a "
            "config.json), or a handle such as 'hf://user/model' or "
            "'kaggle://user/model/keras/variant'. "
            f"Received: preset={preset!r}"
        )
    verify(folder)
    return str(folder)


def verify(folder):
    """Check a preset folder against its manifest, where it has one.

    Args:
        folder: path of the folder.

    Raises:
        ValueError: a file is missing or differs.
    """
    folder = pathlib.Path(folder)
    path = folder / MANIFEST
    if not path.is_file():
        return
    wrong = []
    for name, digest in json.loads(path.read_text())["sha256"].items():
        file = folder / name
        if not file.is_file():
            wrong.append(f"{name} is missing")
        elif _sha256(file) != digest:
            wrong.append(f"{name} was changed")
    if wrong:
        raise ValueError(
            f"The preset does not match its {MANIFEST}: {'; '.join(wrong)}. "
            "Fetch it again, or save the model anew with `save_to_preset`. "
            f"Received: preset={str(folder)!r}"
        )


def write(folder, save):
    """Write a preset folder as a whole or not at all, with a manifest.

    Args:
        folder: path of the new folder.
        save: callable that writes the files into the folder it is given.

    Raises:
        ValueError: the folder exists.
    """
    folder = pathlib.Path(folder)
    if folder.exists():
        raise ValueError(
            "`preset_dir` must not exist yet: nothing is overwritten. Remove "
            f"it or choose another one. Received: preset_dir={str(folder)!r}"
        )
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}.", dir=folder.parent
    ) as temporary:
        whole = pathlib.Path(temporary) / folder.name
        whole.mkdir()
        save(str(whole))
        write_manifest(whole)
        whole.rename(folder)


def write_manifest(folder):
    """Write the manifest of all files now in a preset folder."""
    folder = pathlib.Path(folder)
    files = sorted(p for p in folder.rglob("*") if p.is_file())
    manifest = {
        "versions": {
            "keras_bridgetower": __version__,
            "keras": keras.__version__,
            "keras_hub": keras_hub.__version__,
        },
        "sha256": {
            p.relative_to(folder).as_posix(): _sha256(p)
            for p in files
            if p.name != MANIFEST
        },
    }
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=2) + "\n")


def saved_config(folder, file):
    """A serialized object of a preset folder, or None where it is absent."""
    path = pathlib.Path(folder) / file
    return json.loads(path.read_text()) if path.is_file() else None


def _sha256(path):
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
