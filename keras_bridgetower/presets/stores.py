"""Presets in object stores, such as `s3://bucket/preset`, by fsspec.

Credentials are those of the platform: environment variables, files and services
that the libraries of the store use.
"""

import contextlib
import hashlib
import pathlib
import re
import tempfile

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets.safe_files import plain_name

# A drive of Windows has one letter.
_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://?[^/]")


def is_url(path):
    """Return True if a preset's path is the URL of an object store.

    Raises:
        ValueError: `pathlib.Path` has removed a slash from a URL.
    """
    if not _URL.match(str(path)):
        return False
    if "://" not in str(path):
        raise ValueError(
            "The URL of an object store must be a str, with '://'. Received: "
            f"{str(path)!r}"
        )
    return True


def exists(path):
    """Return True if there is a preset at a path or URL."""
    if not is_url(path):
        return pathlib.Path(path).exists()
    store, root = _open(path)
    return store.exists(_manifest(root))


def remove(url):
    """Remove a preset, its manifest first, so that no part of it is left."""
    store, root = _open(url)
    files_in = store.find(root)
    for path in sorted(files_in, key=lambda p: p != _manifest(root)):
        store.rm_file(path)


def fetch(url):
    """Return a folder with the files of a preset, which are fetched once.

    The manifest is read at each call, and a replaced preset is fetched again.

    Args:
        url: str, of a preset that has a manifest.

    Returns:
        str: path of the folder in `$KERAS_HOME`.

    Raises:
        ValueError: a file differs from the manifest.
        Exception: any error of the store's library.
    """
    store, root = _open(url)
    text = store.cat_file(_manifest(root))
    sums = files.parse_json(text)["sha256"]
    if not all(map(plain_name, sums)):
        raise ValueError("Its manifest has names of files outside its folder.")
    key = hashlib.sha256(text).hexdigest()
    folder = files.keras_home() / "keras_bridgetower_presets" / key

    def download(part):
        for name, checksum in sums.items():
            path = pathlib.Path(part, name)
            path.parent.mkdir(parents=True, exist_ok=True)
            store.get_file(f"{root}/{name}", str(path))
            if files.sha256(path) != checksum:
                raise ValueError(f"{name} differs from the manifest.")
        pathlib.Path(part, manifest.MANIFEST).write_bytes(text)

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
    store, root = _open(url)
    if store.exists(root) and store.find(root):
        raise files.FolderExists(url, name)
    with tempfile.TemporaryDirectory() as temporary:
        folder = pathlib.Path(temporary, "preset")
        save(folder)
        saved = files.read_json(folder / manifest.MANIFEST)
        for file in (*saved["sha256"], manifest.MANIFEST):
            store.put_file(str(folder / file), f"{root}/{file}")


def _open(url):
    store, root = object_stores.open_store(url)
    # Another process may have written since.
    store.invalidate_cache()
    return store, root.rstrip("/")


def _manifest(root):
    return f"{root}/{manifest.MANIFEST}"
