"""Presets exported to the cache, which commands run without Keras.

Importing Keras and a backend takes far longer than an answer. A command that
had to do so starts this module as a process of its own, which exports the
preset for the next call:

    python -m keras_bridgetower.apps.exported bridgetower_tiny_emoji_vqa vqa
"""

import functools
import hashlib
import importlib.util
import json
import os
import pathlib
import shutil
import subprocess
import sys

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower import startup
from keras_bridgetower.apps.predict.batches import each_in_batches
from keras_bridgetower.files import file_state
from keras_bridgetower.files import keras_home
from keras_bridgetower.files import locked
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically
from keras_bridgetower.files import write_folder
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.preprocessing.images import open_image
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
IDENTITY = "identity.json"
# The folder of a whole model.
MODEL = "model"


def folder():
    """Return the folder of all exported presets."""
    return keras_home() / "keras_bridgetower_exported"


class Place:
    """Place in the cache of a preset that is exported for a verb.

    Args:
        preset: str, a name or a folder.
        verb: str, the name of a verb.
    """

    def __init__(self, preset, verb):
        self.preset, self.verb = preset, verb
        known = PRESETS.get(preset)
        root = known.path if known else pathlib.Path(preset)
        self.root = root and root.resolve()
        key = hashlib.sha256(f"{self.root}\n{preset}\n{verb}".encode())
        self.folder = folder() / key.hexdigest()[:20]
        self.failed = self.folder.with_suffix(".failed")

    def identity(self):
        """Return plain values that change with the files of the preset."""
        states = sorted((str(p), *file_state(p)[1:]) for p in self._files())
        return [__version__, self.preset, self.verb, *map(list, states)]

    def _files(self):
        return [path for path in self.root.rglob("*") if path.is_file()]

    def is_possible(self):
        """Return whether commands may run an exported form of the preset."""
        return (
            os.environ.get(SWITCH) != "0"
            and not os.environ.get(startup.OWN_MODULES)
            and self.verb in PARTS
            and self.root is not None
            and self.root.is_dir()
            and _are_installed(RUNS)
            and sum(path.stat().st_size for path in self._files()) <= LARGEST
        )

    def is_there(self):
        return self._says(self.folder / IDENTITY)

    def has_failed(self):
        return self._says(self.failed)

    def _says(self, path):
        return path.is_file() and read_json(path) == self.identity()

    def note_failure(self):
        """Remember that this preset cannot be exported as it is."""
        self.failed.parent.mkdir(parents=True, exist_ok=True)
        text = json.dumps(self.identity()).encode()
        write_atomically(self.failed, lambda file: file.write(text))


def _are_installed(packages):
    return all(importlib.util.find_spec(name) for name in packages)


def available(preset, verb):
    """Open the exported form of a preset, or return None.

    Args:
        preset: str, a name or a folder.
        verb: str, the name of a verb.
    """
    place = Place(preset, verb)
    if not (place.is_possible() and place.is_there()):
        return None
    return ExportedTask(place.folder, PARTS[verb])


def start_writing(preset, verb):
    """Start a process that exports a preset, unless that is done or fails.

    Returns whether one was started.
    """
    place = Place(preset, verb)
    needed = place.is_possible() and _are_installed(WRITES)
    if not needed or place.is_there() or place.has_failed():
        return False
    nothing = dict.fromkeys(("stdin", "stdout", "stderr"), subprocess.DEVNULL)
    subprocess.Popen(
        [sys.executable, "-m", __name__, preset, verb],
        env={**os.environ, "KERAS_BACKEND": "torch"},
        start_new_session=True,
        **nothing,
    )
    return True


def write(preset, verb):
    """Export a preset for a verb.

    Raises:
        ValueError: the model cannot be exported.
    """
    from keras_bridgetower.tasks import by_name

    place = Place(preset, verb)
    # One at a time, as each takes 1.6 GB.
    with locked(folder() / "export.lock"):
        if place.is_there():
            return
        identity = place.identity()
        try:
            task = by_name.open_verb(preset, verb)

            def save(part_of):
                for part in PARTS[verb]:
                    path = pathlib.Path(part_of, part or MODEL)
                    task.export(path, format="onnx", part=part)
                # What cannot be opened is not left for the commands.
                ExportedTask(pathlib.Path(part_of), PARTS[verb])
                text = json.dumps(identity)
                pathlib.Path(part_of, IDENTITY).write_text(text)

            shutil.rmtree(place.folder, ignore_errors=True)
            write_folder(place.folder, save)
        except Exception:
            place.note_failure()
            raise


class Refused(Exception):
    """A request that Keras must handle, to warn of it or to name an error."""


class ExportedTask:
    """The verbs `answer`, `score` and `embed` of an exported preset.

    They take what those of the tasks take, in lists, and return the same.

    Args:
        folder: path, with a folder for each part.
        parts: tuple of str or None.
    """

    def __init__(self, folder, parts):
        self._models = [
            kbt.ExportedModel(folder / (part or MODEL)) for part in parts
        ]

    def check_request(self, texts):
        """Raise `Refused` for texts that Keras cuts with a warning."""
        model = self._reading("texts")
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

    def _reading(self, kind):
        return next(model for model in self._models if kind in model.reads)

    def _run(self, batch_size, output="output", **given):
        """Run the model that reads what is given, in batches."""
        model = self._reading(next(iter(given)))
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
    os.nice(10)
    write(*sys.argv[1:])
