"""Stores that are a folder: made whole, with a header file and a lock."""

import contextlib
import json
import os
import pathlib

from keras_bridgetower.apps.search.stores.store import Store
from keras_bridgetower.files import FolderExists
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import one_writer
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically
from keras_bridgetower.files import write_folder

HEADER = "search.json"
_LOCK = "search.lock"
_LARGEST = 1_000_000


class FolderStore(Store):
    """Abstract: a store in a folder of its own.

    The folder appears with an empty store and its header at once, so that
    there is none without either.

    Args:
        folder: path of the folder, which may not exist yet.

    Raises:
        ValueError: it is a file, or a folder that holds something else.
    """

    needed = (
        "`store` must hold a table that can be read and written. It is "
        "damaged, or the disk is full: make room, or delete the folder and "
        "index again"
    )

    def __init__(self, folder):
        self.folder = pathlib.Path(os.path.abspath(folder))
        self.place = str(self.folder)
        self._check_folder()

    def _check_folder(self):
        if not self.folder.exists() or (self.folder / HEADER).is_file():
            return
        if not self.folder.is_dir() or any(self.folder.iterdir()):
            raise ValueError(
                "`store` must be a new or empty folder, or one that `index` "
                f"made, with a {HEADER}. Received: "
                f"store={str(self.folder)!r}, which holds something else"
            )

    def header(self):
        path = self.folder / HEADER
        if not path.is_file():
            return None
        try:
            header = read_json(path, _LARGEST)
            kind = header["store"]
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(
                f"`store` must hold a readable {HEADER}. Remove the folder and "
                "index again. Received: "
                f"store={str(self.folder)!r}, whose file is damaged: {error}"
            ) from error
        if kind != self.kind:
            raise ValueError(
                f"`store` must be of the kind it was made as, {kind}. "
                f"Received: store={str(self.folder)!r}, opened as {self.kind}"
            )
        return header

    def create(self, header):
        def save(folder):
            self._make(pathlib.Path(folder), header["width"])
            _write(pathlib.Path(folder), header)

        if self.folder.exists():
            # An empty one; anything else stays, and is told.
            self._check_folder()
            with contextlib.suppress(OSError):
                self.folder.rmdir()
        try:
            write_folder(self.folder, save)
        except FolderExists:
            # Another process was faster, and made the same.
            self._check_folder()

    def write_header(self, header):
        _write(self.folder, header)

    def writing(self):
        check_no_link(self.folder, "store")
        return one_writer(
            self.folder / _LOCK,
            "`store` must be written by one process at a time. Wait for the "
            "other one, or use another folder. "
            f"Received: store={str(self.folder)!r}",
        )

    def _make(self, folder, width):
        """Make an empty store, for vectors of a width, in a new folder."""
        raise NotImplementedError


def _write(folder, header):
    text = json.dumps(header, indent=2) + "\n"
    write_atomically(folder / HEADER, lambda file: file.write(text.encode()))
