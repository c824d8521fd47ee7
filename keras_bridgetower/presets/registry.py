"""The presets that are known by name, and how a name becomes a folder."""

import dataclasses
import json
import os
import pathlib
import tempfile

import safetensors.numpy

from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights

_HERE = pathlib.Path(__file__).parent
HEADS = "heads.json"
# Tensors of a foreign checkpoint that the architecture never reads.
EXTRA = "extra.safetensors"


@dataclasses.dataclass(frozen=True)
class Preset:
    """What is known about a preset before it is opened.

    Args:
        name: str, its name in `from_preset`.
        description: str, one sentence.
        parameters: int, number of parameters, heads included.
        image_size: int, side of its images in pixels.
        heads: tuple of str, the heads it holds.
        tasks: tuple of str, the task classes that need no new head.
        handle: str, where it is published, None if it is in the package.
    """

    name: str
    description: str
    parameters: int
    image_size: int
    heads: tuple
    tasks: tuple
    handle: str | None = None


def _published(name, description, parameters, image_size, *heads):
    tasks = {
        "itm": "BridgeTowerRetrieval",
        "mlm": "BridgeTowerMaskedLM",
        "itc": "BridgeTowerContrastive",
    }
    return Preset(
        f"bridgetower_{name.replace('-', '_')}",
        description,
        parameters,
        image_size,
        heads,
        tuple(tasks[head] for head in heads),
        f"hf://BridgeTower/bridgetower-{name}",
    )


# Parameters of transformers' classes, less those that nothing reads.
PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            name="bridgetower_tiny_easy_vqa",
            description="Trained from scratch on easy-VQA; runs offline.",
            parameters=846_158,
            image_size=64,
            heads=("vqa",),
            tasks=("BridgeTowerVQA",),
        ),
        _published("base", "Base size; no head.", 325_754_880, 288),
        _published(
            "base-itm-mlm",
            "Base size, pre-trained by matching and masked language.",
            365_003_867,
            288,
            "itm",
            "mlm",
        ),
        _published(
            "large-itm-mlm",
            "Large size, pre-trained by matching and masked language.",
            916_039_771,
            294,
            "itm",
            "mlm",
        ),
        _published(
            "large-itm-mlm-itc",
            "Large size, with a shared space of text, image and both.",
            918_138_460,
            294,
            "itm",
            "mlm",
            "itc",
        ),
        _published(
            "large-itm-mlm-gaudi",
            "Large size, pre-trained on Gaudi accelerators.",
            916_039_771,
            294,
            "itm",
            "mlm",
        ),
    )
}


class PresetsOf:
    """Class attribute: the known presets of a class, name to `Preset`."""

    def __get__(self, instance, cls):
        def fits(preset):
            known = (*preset.tasks, "BridgeTowerBackbone")
            return preset.handle or cls.__name__ in known

        return {n: preset for n, preset in PRESETS.items() if fits(preset)}


def _from_hugging_face(handle):
    import huggingface_hub  # A dependency of `tokenizers`.

    names = huggingface_hub.HfApi().list_repo_files(handle)
    # Weights are often published twice; the pickled ones are the worse.
    safe = any(name.endswith(".safetensors") for name in names)
    return huggingface_hub.snapshot_download(
        handle,
        allow_patterns=["*.json", "*.txt", "*.h5", "*.safetensors"]
        + ([] if safe else ["pytorch_model*.bin"]),
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


# Folders that are being written, which parts of a model may write into.
_OPEN = set()


def write(folder, save, sums=True):
    """Write a folder as a whole or not at all.

    Args:
        folder: path of the new folder.
        save: callable that writes the files into the folder it is given.
        sums: bool, whether to add a manifest.

    Raises:
        ValueError: the folder exists.
    """
    folder = pathlib.Path(folder)
    if str(folder) in _OPEN:
        save(str(folder))
        return
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
        _OPEN.add(str(whole))
        try:
            save(str(whole))
        finally:
            _OPEN.remove(str(whole))
        if sums:
            manifest.write(whole)
        whole.rename(folder)


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
    """Load the weights of a preset folder, once its check is over."""
    manifest.verify(folder)
    weights.load(backbone, folder)


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
