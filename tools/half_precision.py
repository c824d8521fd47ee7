"""Store the weights of preset folders in half precision.

A preset takes half the room then. It loads as before: each number becomes that
of the model's own type, and nothing is rounded again. Score the preset before
and after, and keep float32 where a score moves.

    python tools/half_precision.py runs/tiny/bridgetower_tiny_easy_mlm
"""

import argparse
import pathlib
import tempfile
import warnings

import numpy as np

from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.folder import PresetFolder


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folders", nargs="+", type=pathlib.Path)
    for folder in parser.parse_args().folders:
        store_in_half(folder)
        print(folder, sum(f.stat().st_size for f in folder.rglob("*.h5")))


def store_in_half(folder):
    """Rewrite the float32 weights of a preset as float16, and its manifest."""
    folder = pathlib.Path(folder)
    PresetFolder(folder).finish_check()
    path = folder / weights_file.WEIGHTS
    tasks = folder / weights_file.TASK_WEIGHTS
    files = [path, tasks] if tasks.is_file() else [path]
    # None of them changes unless all can be stored.
    with tempfile.TemporaryDirectory(dir=folder.parent) as made:
        halves = [pathlib.Path(made) / file.name for file in files]
        for file, half in zip(files, halves, strict=True):
            weights_file.rewrite(file, half, _halved)
        for file, half in zip(files, halves, strict=True):
            half.replace(file)
    manifest.write(folder)


def _halved(name, values):
    if values.dtype != np.float32:
        return values
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        half = values.astype(np.float16)
    if not np.isfinite(half).all():
        raise ValueError(
            "Weights stored in half precision must lie within ±65504. "
            f"Received: {name}, up to {np.abs(values).max()}. Keep this "
            "preset in float32."
        )
    return half


if __name__ == "__main__":
    main()
