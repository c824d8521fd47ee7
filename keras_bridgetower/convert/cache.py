"""Foreign checkpoints as preset folders, converted once."""

import hashlib
import json
import os
import pathlib

from keras_bridgetower.convert import huggingface
from keras_bridgetower.convert import lightning
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.version import __version__

# What a source is made of; other files are not looked at.
SUFFIXES = (".json", ".txt", ".safetensors", ".bin", ".ckpt", ".pt")


def open_checkpoint(source, **kwargs):
    """Open weights of another library.

    Args:
        source: path of a `transformers` folder, or of a checkpoint file of
            the authors.
        **kwargs: `text_heads`, `answers` and `ignore` of `lightning.read`,
            for a file.

    Returns:
        `Checkpoint`.

    Raises:
        ConversionError: they cannot be read or do not fit.
    """
    source = pathlib.Path(source)
    if source.is_file():
        return lightning.read(source, **kwargs)
    return huggingface.read(source, **kwargs)


def converted(source):
    """The preset folder of a foreign checkpoint, made where it is not yet.

    Args:
        source: path, as `open_checkpoint` takes it.

    Returns:
        `pathlib.Path` of the folder, in the cache. Its name depends on the
        content of the source and on the version of this library; the content
        is read again only when a file's time or size has changed.

    Raises:
        ConversionError: they cannot be read or do not fit.
    """
    source = pathlib.Path(source).resolve()
    content = json.dumps([__version__, sorted(_sums(source).items())])
    key = hashlib.sha256(content.encode()).hexdigest()[:32]
    folder = cache_folder() / key
    try:
        if not _whole(folder):
            open_checkpoint(source).save_to_preset(folder)
    except registry.FolderExists:
        # Another process was converting it too, and was first.
        if not _whole(folder):
            raise
    return folder


def _whole(folder):
    return (folder / manifest.MANIFEST).is_file()


def cache_folder():
    """`presets` in `$KERAS_HOME`, or in `~/.keras`."""
    home = os.environ.get("KERAS_HOME") or pathlib.Path.home() / ".keras"
    return pathlib.Path(home) / "keras_bridgetower" / "presets"


def _sums(source):
    """Digest of each file, remembered as long as it is not written to."""
    memory = cache_folder() / "digests.json"
    try:
        known = json.loads(memory.read_text())
    except (OSError, ValueError):
        known = {}
    sums, new = {}, {}
    for path in _files(source):
        stat = path.stat()
        mark = f"{path} {stat.st_size} {stat.st_mtime_ns} {stat.st_ctime_ns}"
        sums[path.name] = known.get(mark) or manifest.sha256(path)
        new[mark] = sums[path.name]
    if not new.items() <= known.items():
        memory.parent.mkdir(parents=True, exist_ok=True)
        temporary = memory.with_suffix(f".{os.getpid()}")
        temporary.write_text(json.dumps({**known, **new}))
        temporary.replace(memory)
    return sums


def _files(source):
    """A checkpoint and its tokenizer, or all that counts in a folder."""
    if source.is_file():
        beside = [source.parent / name for name in lightning.TOKENIZER_FILES]
        return [path for path in (source, *beside) if path.is_file()]
    paths = sorted(p for p in source.iterdir() if p.suffix in SUFFIXES)
    return [path for path in paths if path.is_file()]
