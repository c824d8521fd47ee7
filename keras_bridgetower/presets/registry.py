"""Where presets lie, and how their folders are read and written."""

import json
import os
import pathlib
import tempfile

import safetensors.numpy

from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights
from keras_bridgetower.presets.known import PRESETS

_HERE = pathlib.Path(__file__).parent
HEADS = "heads.json"
# Tensors of a foreign checkpoint that the architecture never reads.
EXTRA = "extra.safetensors"


def _from_hugging_face(handle):
    import huggingface_hub  # A dependency of `tokenizers`.

    names = huggingface_hub.HfApi().list_repo_files(handle)
    # Weights are often published twice; the pickled ones are the worse.
    safe = any(name.endswith(".safetensors") for name in names)
    kind = "*.safetensors" if safe else "pytorch_model*.bin"
    return huggingface_hub.snapshot_download(
        handle, allow_patterns=["*.json", "*.txt", "*.h5", kind]
    )


def _from_kaggle(handle):
    import kagglehub  # A dependency of KerasHub.

    return kagglehub.model_download(handle)


DOWNLOADS = {"hf": _from_hugging_face, "kaggle": _from_kaggle}


def resolve(preset, wait=True):
    """Where a preset lies; a local one is checked against its manifest.

    Args:
        preset: a known name, a local folder, a checkpoint file of the
            authors, or a handle `hf://user/model` or
            `kaggle://user/model/keras/variant`.
        wait: bool, as `manifest.verify`.

    Returns:
        str: a preset folder. A handle's files are downloaded, or found in the
        cache; what another library wrote is converted, or found in the cache.

    Raises:
        ValueError: nothing of that name, files that differ from the manifest,
            or (`ConversionError`) foreign weights that do not fit.

    Example:

    ```python
    resolve("bridgetower_tiny_easy_vqa")
    ```
    """
    name = os.fspath(preset)
    known = PRESETS.get(name)
    source = _download(known.handle if known and known.handle else name, name)
    folder = _HERE / source if source in PRESETS else pathlib.Path(source)
    if not folder.is_file() and not (folder / "config.json").is_file():
        raise ValueError(
            f"`preset` must be one of the names {sorted(PRESETS)}, the path of "
            "a preset folder or of a `transformers` folder (with a "
            "config.json), of a checkpoint file of the authors, or a handle "
            "such as 'hf://user/model' or "
            f"'kaggle://user/model/keras/variant'. Received: preset={name!r}"
        )
    if is_foreign(folder):
        from keras_bridgetower.convert import cache

        folder = cache.converted(folder)
    manifest.verify(folder, wait)
    return str(folder)


def _download(handle, asked):
    """The folder of a handle; other names as they are."""
    scheme, _, rest = handle.rpartition("://")
    if scheme not in DOWNLOADS:
        return handle
    try:
        return DOWNLOADS[scheme](rest)
    except Exception as error:  # Each hub has its own kinds of errors.
        raise ValueError(
            f"`preset` needs the configuration, tokenizer and weights of "
            f"{rest!r} from the hub {scheme!r}, which could not be fetched: "
            f"{type(error).__name__}: {error!s:.300} Check the name and the "
            "connection, or fetch the repository elsewhere and pass the path "
            f"of its folder. Received: preset={asked!r}"
        ) from error


def is_foreign(path):
    """Whether a path holds weights of another library."""
    if path.is_file():
        return True
    try:
        config = json.loads((path / "config.json").read_text())
    except ValueError:
        return True  # The conversion says what is wrong with it.
    return not (isinstance(config, dict) and "registered_name" in config)


def export(model, path):
    """Write a backbone or task as a `transformers` folder."""
    from keras_bridgetower.convert import export as to_transformers

    parts = to_transformers.parts_of(model)
    write(path, lambda f: to_transformers.export(parts, f), sums=False)


class FolderExists(ValueError):
    """A folder to be written exists already."""

    def __init__(self, folder):
        super().__init__(
            "`preset_dir` must not exist yet: nothing is overwritten. Remove "
            f"it or choose another one. Received: preset_dir={str(folder)!r}"
        )


# Folders being written, which parts of a model may write into.
_OPEN = set()


def write(folder, save, sums=True):
    """Write a folder as a whole or not at all.

    Args:
        folder: path of the new folder.
        save: callable that writes the files into the folder it is given.
        sums: bool, whether to add a manifest.

    Raises:
        FolderExists: the folder exists, be it since another process wrote it.
    """
    folder = pathlib.Path(folder)
    if str(folder) in _OPEN:
        save(str(folder))
        return
    if folder.exists():
        raise FolderExists(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(
        prefix=f".{folder.name}.", dir=folder.parent
    ) as temporary:
        whole = pathlib.Path(temporary) / folder.name
        whole.mkdir()
        _OPEN.add(str(whole))
        try:
            save(str(whole))
        finally:
            _OPEN.remove(str(whole))
        if sums:
            manifest.write(whole)
        try:
            whole.rename(folder)
        except OSError as error:
            if folder.exists():
                raise FolderExists(folder) from error
            raise


def write_backbone(backbone, save, folder, max_shard_size):
    """Write a backbone's preset folder, with what it carries along."""

    def write_files(path):
        save(path, max_shard_size)
        weights.write_index(backbone, path)
        if backbone.extra:
            safetensors.numpy.save_file(
                dict(backbone.extra), file_of(path, EXTRA)
            )

    write(folder, write_files)


def load_backbone(backbone, folder):
    """Load the weights of a preset folder while its check goes on."""
    try:
        weights.load(backbone, folder)
    finally:
        # A file that was changed may fail in any way: this error comes first.
        manifest.verify(folder)


def read_extra(folder):
    """Tensors that a preset carries along, by name."""
    path = file_of(folder, EXTRA)
    return safetensors.numpy.load_file(path) if os.path.isfile(path) else {}


def write_json(folder, file, values):
    """Write plain values into a preset folder."""
    text = json.dumps(values, indent=2)
    (pathlib.Path(folder) / file).write_text(text + "\n")


def saved_config(folder, file):
    """The values of a file of a preset folder, or None where it is absent."""
    path = pathlib.Path(folder) / file
    return json.loads(path.read_text()) if path.is_file() else None


def file_of(folder, name):
    """The path of a file in a preset folder."""
    return os.path.join(folder, name)
