"""Presets in object stores, such as `s3://bucket/preset`."""

import contextlib
import hashlib
import pathlib
import tempfile

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.presets.manifest import MANIFEST
from keras_bridgetower.presets.safe_files import LARGEST_ASSET
from keras_bridgetower.presets.safe_files import LARGEST_JSON

# Files without a largest size but that of the disk.
_WEIGHTS = (".h5", ".safetensors")


def exists(path):
    """Return True if there is a preset at a path or URL."""
    if object_stores.is_url(path):
        return MANIFEST in object_stores.Store(path).names()
    return pathlib.Path(path).exists()


def remove(url):
    """Remove a preset, its manifest first, so that no part of it is left."""
    store = object_stores.Store(url)
    store.remove(store.names(), first=MANIFEST)


def fetch(url):
    """Return a folder with the files of a preset, which are fetched once.

    The manifest is read at each call, and a replaced preset is fetched again.

    Args:
        url: str, of a preset that has a manifest.

    Returns:
        str: path of the folder in `$KERAS_HOME`.

    Raises:
        ValueError: a file differs from the manifest.
        StoreError: the store could not be read in time.
    """
    store = object_stores.Store(url)
    text = store.read(MANIFEST, LARGEST_JSON)
    sums = files.parse_json(text)["sha256"]
    if not all(map(files.plain_name, sums)):
        raise ValueError("Its manifest has names of files outside its folder.")
    key = hashlib.sha256(text).hexdigest()
    folder = files.keras_home() / "keras_bridgetower_presets" / key

    def download(part):
        for name, checksum in sums.items():
            largest = None if name.endswith(_WEIGHTS) else LARGEST_ASSET
            store.fetch(name, pathlib.Path(part, name), largest, str(checksum))
        pathlib.Path(part, MANIFEST).write_bytes(text)

    folder.parent.mkdir(parents=True, exist_ok=True)
    with files.locked(folder.with_suffix(".lock")):
        # Without working locks another process may write it first.
        with contextlib.suppress(files.FolderExists):
            if not folder.exists():
                files.write_folder(folder, download)
    return str(folder)


def write(url, save, name):
    """Write a preset; its manifest comes last, so no part of it can be opened.

    Args:
        url: str, where nothing is yet.
        save: callable that gets the path of a new folder and writes a preset.
        name: str, the argument with the URL, for errors.

    Raises:
        FolderExists: there are files, such as those of an interrupted write.
    """
    store = object_stores.Store(url)
    if store.names():
        raise files.FolderExists(store, name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "preset")
        save(folder)
        saved = files.read_json(folder / MANIFEST)
        for file in (*saved["sha256"], MANIFEST):
            store.write(file, folder / file)
