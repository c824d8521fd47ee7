"""Exported presets, which commands run without Keras.

Importing Keras and a backend takes far longer than an answer. Distributions
ship exported forms of their presets. For other presets, a command that had to
import Keras starts this module as a process of its own, which exports the
preset to the cache for the next call:

    python -m keras_bridgetower.apps.exported bridgetower_tiny_emoji_vqa vqa
"""

import contextlib
import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower import files
from keras_bridgetower import startup
from keras_bridgetower.apps.predict.batches import each_in_batches
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.preprocessing.images import open_image
from keras_bridgetower.presets import needed_files
from keras_bridgetower.presets import verbs
from keras_bridgetower.presets.table import PRESETS
from keras_bridgetower.version import __version__

# Parts that a verb runs; None is the whole model.
PARTS = {
    verbs.ANSWER.name: (None,),
    verbs.SCORE.name: (None,),
    verbs.EMBED_IMAGES.name: ("image_tower", "text_tower"),
}
# Packages that run an exported model, and those that write it besides.
RUNS = ("onnxruntime", "tokenizers", "PIL")
WRITES = ("torch", "onnx", "onnxscript")
# Set to 0, the environment variable keeps commands from all this.
SWITCH = "KERAS_BRIDGETOWER_EXPORTED"
# Larger presets, in bytes of files, are not exported: in float32 they may
# become four times as large.
LARGEST = 256 * 2**20
# Bytes of memory that must be free for an export, which takes 1.6 GB.
FREE = 4e9
# Seconds until an export that failed, or was killed, is tried again.
AGAIN = 24 * 60 * 60
# The folder of a whole model.
MODEL = "model"
# The folder of a distribution with the exported forms of its presets.
SHIPPED = "exported"
# The file of a preset with the weights of its backbone.
WEIGHTS = "model.weights.h5"
# Files of a preset that no model reads.
REPORTS = ("README.md", "training.json", files.MANIFEST)


def folder():
    """Return the folder of all exported presets."""
    return files.keras_home() / "keras_bridgetower_exported"


def _alone():
    """Take the lock of the only process that may export, without waiting."""
    busy = "Another process is exporting a preset."
    return files.one_writer(folder() / "export.lock", busy)


class CachedExport:
    """The export of a preset for a verb in the cache, which may not be there.

    Args:
        preset: str, a name or a folder.
        verb: str, the name of a verb.
    """

    # The version that must open it, and the folder of the weights, if they are
    # not in the exported models.
    version, weights = __version__, None

    def __init__(self, preset, verb):
        self.preset, self.verb = preset, verb
        known = PRESETS.get(preset)
        root = known.path if known else pathlib.Path(preset)
        self.root = root and root.resolve()
        key = hashlib.sha256(f"{self.root}\n{preset}\n{verb}".encode())
        self.folder = folder() / key.hexdigest()[:20]
        self.tried = self.folder.with_suffix(".tried")

    def identity(self):
        """Return plain values that change with the contents of the preset."""
        names = {p.relative_to(self.root).as_posix(): p for p in self._files()}
        sums = {name: files.sha256(path) for name, path in names.items()}
        return [self.version, self.preset, self.verb, sums]

    def _files(self):
        paths = needed_files.model_files(self.root)
        return [path for path in paths if path.name not in REPORTS]

    def is_possible(self):
        """Return whether commands may run an exported form of the preset."""
        return (
            os.environ.get(SWITCH) != "0"
            and self.folder
            and not os.environ.get(startup.OWN_MODULES)
            and self.verb in PARTS
            and self.root is not None
            and self.root.is_dir()
            and sum(path.stat().st_size for path in self._files()) <= LARGEST
        )

    def is_there(self):
        """Return whether the preset is exported, and every file is intact."""
        try:
            found = files.read_json(self.folder / files.MANIFEST)
        except (OSError, ValueError):
            return False
        return found == [self.identity(), files.folder_sums(self.folder)]

    def open(self, folder):
        """Return the `ExportedTask` of a folder that `save` wrote."""
        parts = [folder / (part or MODEL) for part in PARTS[self.verb]]
        return ExportedTask([kbt.ExportedModel(x, self.weights) for x in parts])

    def save(self, folder, change=lambda model: None):
        """Export the preset to a new folder, with PyTorch.

        Args:
            folder: path of the folder.
            change: callable that gets the folder of each exported model and
                changes its files.
        """
        folder, identity = pathlib.Path(folder), self.identity()
        # As the package does where it is not imported by a command.
        importlib.import_module("keras_bridgetower.convert")
        from keras_bridgetower.tasks import by_name

        task = by_name.open_verb(self.preset, self.verb)
        for part in PARTS[self.verb]:
            model = folder / (part or MODEL)
            task.export(model, format="onnx", part=part)
            change(model)
        # What cannot be opened is not left for the commands.
        self.open(folder)
        sums = files.folder_sums(folder)
        _write_json(folder / files.MANIFEST, [identity, sums])

    def was_tried(self):
        """Return whether an export began lately that has not succeeded."""
        try:
            age = time.time() - self.tried.stat().st_mtime
            found = files.read_json(self.tried)
        except (OSError, ValueError):
            return False
        return age < AGAIN and found == self.identity()


class ShippedExport(CachedExport):
    """The export of a preset for a verb in the preset's distribution.

    Its models have no weights: they read those of the preset.
    `tools/ship_exports.py` writes it.

    Args:
        preset, verb: as of `CachedExport`.
    """

    version = None

    def __init__(self, preset, verb):
        super().__init__(preset, verb)
        package = preset in PRESETS and PRESETS[preset].root
        self.folder = package and pathlib.Path(package, SHIPPED, preset)
        if package:
            # Where an installer makes links, their targets are in one folder.
            self.weights = (self.root / WEIGHTS).resolve().parent


def _write_json(path, value):
    text = json.dumps(value).encode()
    files.write_atomically(path, lambda file: file.write(text))


def _lacking(packages):
    return [name for name in packages if not importlib.util.find_spec(name)]


def available(preset, verb):
    """Open the exported form of a preset, or return None.

    Args:
        preset: str, a name or a folder.
        verb: str, the name of a verb.
    """
    for export in (ShippedExport(preset, verb), CachedExport(preset, verb)):
        if export.is_possible() and not _lacking(RUNS) and export.is_there():
            # Such as of a runtime that is too old, or a file that is removed
            # just now.
            with contextlib.suppress(Exception):
                return export.open(export.folder)
    return None


def prepare(preset, verb):
    """Start a process that exports a preset, if that is useful now.

    Returns:
        str, what makes later calls fast; None if the user needs no advice.
    """
    cached = CachedExport(preset, verb)
    if os.environ.get(SWITCH) == "0":
        return None
    if not cached.is_possible():
        return (
            "Each command loads Keras, which takes most of the time. "
            f"`keras-bridgetower serve {preset}` loads it once for many."
        )
    slow = "Without Keras, calls would answer in a second. "
    if lacking := _lacking((*RUNS, *WRITES)):
        return (
            f"{slow}That needs {', '.join(lacking)}: in a clone, `pip install "
            "'.[torch,export]'`."
        )
    if _free_memory() < FREE:
        return f"{slow}To export {preset}, 4 GB of memory must be free."
    words = ["-m", "keras_bridgetower.apps.exported", preset, verb]
    try:
        with _alone():
            if cached.is_there():
                return None
            if cached.was_tried():
                return (
                    f"{slow}The last export of {preset} has not ended. `python "
                    f"{' '.join(words)}` shows why; a day later it starts anew."
                )
            # In case that it fails.
            _write_json(cached.tried, cached.identity())
        subprocess.Popen(
            [sys.executable, *words],
            env={**os.environ, "KERAS_BACKEND": "torch"},
            start_new_session=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
    except (OSError, ValueError) as error:
        return f"{slow}{preset} is not exported now: {error}"
    return (
        f"{preset} is being exported in the background, which takes a few "
        "minutes. After that, calls answer without loading Keras."
    )


def _free_memory(root="/"):
    """Return the bytes of memory that are free, infinite where unknown."""
    root = pathlib.Path(root)
    group, free = root / "sys/fs/cgroup", float("inf")
    with contextlib.suppress(OSError):
        lines = (root / "proc/meminfo").read_text()
        free = 1024 * int(re.search(r"MemAvailable: +(\d+)", lines)[1])
    # The limit of a container; "max" is none.
    with contextlib.suppress(OSError, ValueError):
        limit = int((group / "memory.max").read_text())
        lines = (group / "memory.stat").read_text()
        free = min(free, limit - int(re.search(r"anon (\d+)", lines)[1]))
    return free


def write(preset, verb):
    """Export a preset for a verb.

    Raises:
        ValueError: another process exports a preset, or the model cannot be
            exported.
    """
    with _alone():
        cached = CachedExport(preset, verb)
        if cached.is_there():
            return
        # Of processes that were killed.
        for path in folder().glob(".*"):
            shutil.rmtree(path, ignore_errors=True)
        shutil.rmtree(cached.folder, ignore_errors=True)
        files.write_folder(cached.folder, cached.save)
        cached.tried.unlink(missing_ok=True)


class Refused(Exception):
    """A request that Keras must handle, to warn of it or to name an error."""


class ExportedTask:
    """The verbs `answer`, `score` and `embed` of an exported preset.

    They take what those of the tasks take, in lists, and return the same.

    Args:
        models: list of `ExportedModel`, the parts.
    """

    def __init__(self, models):
        self._models = models

    def check_request(self, texts):
        """Raise `Refused` for texts that Keras cuts with a warning."""
        model = self._model_for("texts")
        if any(model.is_cut(text) for text in texts):
            raise Refused("A text is too long.")

    def answer(self, images, questions, top_k=1, batch_size=32):
        model = self._models[0]
        if top_k > len(model.names):
            raise Refused("There are fewer answers.")
        logits = self._run(batch_size, pictures=images, texts=questions)
        found = model.best_answers(logits, questions, top_k)
        return [verbs.Answers(*row) for row in found]

    def outputs_for(self, verb, images, texts, batch_size=32):
        """Return the logits of pairs."""
        if isinstance(texts, str):
            texts = [texts] * len(images)
        if not isinstance(images, list):
            images = [images] * len(texts)
        return self._run(batch_size, pictures=images, texts=texts)

    def score(self, images, texts, batch_size=32):
        """Score pairs, as `BridgeTowerRetrieval.score` does."""
        return match_scores(
            self.outputs_for("score", images, texts, batch_size)
        )

    def match_files(self, paths, text, batch_size):
        """Score picture files with a text, as the models of a search do."""

        def score(part):
            return self.score(part, text, batch_size).tolist()

        return each_in_batches(score, paths, batch_size)

    def embed(self, images=None, texts=None, batch_size=32):
        given = {"pictures": images, "texts": texts}
        given = {name: rows for name, rows in given.items() if rows}
        if len(given) != 1:
            raise Refused("Pairs need the fusion.")
        return self._run(batch_size, "embedding", **given)

    def _model_for(self, kind):
        return next(model for model in self._models if kind in model.reads)

    def _run(self, batch_size, output="output", **given):
        """Run the model that reads what is given, in batches."""
        model = self._model_for(next(iter(given)))
        if "texts" in given:
            self.check_request(given["texts"])
        count = len(next(iter(given.values())))
        # One picture may be there with many texts.
        opened, found = functools.lru_cache(1)(_opened), []
        for first in range(0, count, batch_size):
            part = {k: x[first : first + batch_size] for k, x in given.items()}
            if "pictures" in part:
                part["pictures"] = [*map(opened, part["pictures"])]
            found.append(model(**part)[output])
        return np.concatenate(found)


def _opened(picture):
    """Open a picture, with the errors that Keras' preprocessing has."""
    picture = open_image(picture)
    if max(high for _, high in picture.getextrema()) == 1:
        raise Refused("Keras warns of a mask.")
    return picture


if __name__ == "__main__":
    getattr(os, "nice", int)(10)
    write(*sys.argv[1:])
