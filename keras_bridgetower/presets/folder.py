"""`PresetFolder`: an opened preset folder, whose files are read once."""

import contextlib
import copy
import os
import pathlib

from keras_bridgetower.checks import BuiltElsewhere
from keras_bridgetower.checks import MissingMethod
from keras_bridgetower.files import plain_name
from keras_bridgetower.presets import configs
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.safe_files import check_regular
from keras_bridgetower.presets.safe_files import read_json

CONFIG = "config.json"
_NOT_OF_FILES = (BuiltElsewhere, MissingMethod, MemoryError, Warning)
_NOT_OF_FILES += (PresetError,)


class PresetFolder:
    """An opened preset folder, from which all parts of a model are loaded.

    Every `from_preset` also takes an opened folder in place of a name. So a
    task with its backbone, tokenizer and image converter checks the folder once
    and parses each file once. `registry.open_preset` returns it.

    Args:
        root: path of the folder. If it has a manifest, its small files are
            checked against it now, and a check of its large files is started.

    Raises:
        PresetError: files differ from the manifest.
    """

    def __init__(self, root):
        self.root = pathlib.Path(os.path.abspath(root))
        self._checks = manifest.verify(self.root)
        self._parsed = {}

    @property
    def has_manifest(self):
        """bool, whether the folder has a manifest."""
        return self._checks is not None

    def finish_check(self):
        """Wait for the check of the weights.

        Raises:
            PresetError: a file differs from the manifest.
        """
        for check in (self._checks or {}).values():
            check.result()

    def has(self, name):
        """Return True if the folder has a file of this name."""
        if self.has_manifest:
            return name in self._checks
        return plain_name(name) and os.path.lexists(self.root / name)

    def path(self, name):
        """Return the `pathlib.Path` of a file inside the folder.

        Raises:
            PresetError: the file is missing, or may not be opened.
        """
        listed = not self.has_manifest or name in self._checks
        if not plain_name(name) or not listed:
            raise PresetError(
                "A file name in a preset must be plain, and in its manifest.",
                self.root,
                [name],
            )
        path = self.root / name
        check_regular(path, self.root)
        return path

    def weight_bytes(self):
        """Return the size of the backbone's weight files in bytes."""
        names = [path.name for path in self.root.glob("model*.weights.h5")]
        paths = map(self.path, names or [weights_file.WEIGHTS])
        return sum(path.stat().st_size for path in paths)

    def room_for_heads(self):
        """Return an upper bound on the number of weights of the heads.

        Returns:
            `(count, file)`, or None if there is no such file.
        """
        file = weights_file.TASK_WEIGHTS
        if not self.has(file):
            return None
        return configs.WEIGHTS_IN_A_BYTE * self.path(file).stat().st_size, file

    def json(self, name, default=None):
        """Read a JSON file of the folder.

        Args:
            name: str, name of the file.
            default: dict to return if there is no such file. If None, an
                error is raised.

        Returns:
            dict, a copy.
        """
        if default is not None and not self.has(name):
            return default
        if name not in self._parsed:
            self._parsed[name] = read_json(self.path(name), self.root)
        return copy.deepcopy(self._parsed[name])

    def spec(self, name, base):
        """Return the class and arguments that a JSON file describes."""
        with self.reading(name):
            return configs.class_and_values(self.json(name), base)

    def build(self, name, base, spec=None, without=(), **values):
        """Build an object without weights that a JSON file describes.

        Args:
            name: str, name of the file.
            base: the expected class, or a superclass of it.
            spec: dict, a configuration to use in place of the file's.
            without: tuple of str, constructor arguments that must not be in
                the file.
            **values: constructor arguments that replace the saved ones.

        Returns:
            Object of `base`.

        Raises:
            PresetError: the file describes another object.
        """
        with self.reading(name):
            spec = self.json(name) if spec is None else spec
            cls, config = configs.class_and_values(spec, base)
            configs.check_values(config)
            configs.check_own_file(config, name, without)
        return self.create(name, cls.from_config, config, values)

    def create(self, name, make, saved, given):
        """Call `make` with saved values and those of a caller.

        Args:
            name: str, name of the file with the saved values.
            make: callable of a dict of all values.
            saved: dict of values.
            given: dict of values that replace saved ones.

        Raises:
            PresetError: `make` raised an error.
        """
        source = " and ".join([name, *(f"`{value}`" for value in given)])
        with self.reading(source, given):
            return make({**saved, **given})

    @contextlib.contextmanager
    def reading(self, name, given=()):
        """Turn errors in a `with` block into a `PresetError` about file `name`.

        Constructors check the arguments of users, but values of a damaged
        file may raise any error. One about an argument that is `given` is no
        fault of the file.
        """
        try:
            yield
        except _NOT_OF_FILES:
            raise
        except Exception as error:
            # Keras puts the values of a file before it.
            text = str(error).rpartition("Exception encountered: ")[2]
            if text.startswith(tuple(f"`{k}` must" for k in given)):
                raise ValueError(text) from error
            reason = f"{type(error).__name__}: {error!s:.600}"
            raise PresetError(
                f"{name} cannot be used: {reason}", self.root
            ) from error
