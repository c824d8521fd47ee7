"""Open a preset and run it; as a process, where torch cannot be imported.

Run as `python published_run.py FOLDER`, with files `0.npz` and so on in the
folder; each holds features, and in `how` the task, the preset and whether its
backbone alone is to run. Outputs are written beside, as `out_0.npz`.
"""

import importlib.abc
import pathlib
import sys
import warnings

import numpy as np


class Refuse(importlib.abc.MetaPathFinder):
    """Makes the import of torch an error, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def opened(task, preset):
    """A task or the backbone of a preset, and what was warned of."""
    import keras_bridgetower as kbt

    labels = {"answers": ["yes", "no", "two"]} if task == "VQA" else {}
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        cls = getattr(kbt, f"BridgeTower{task}")
        return cls.from_preset(preset, **labels), [str(w.message) for w in told]


def outputs(model, features, bare):
    """Outputs by name, of the backbone alone where the head is new."""
    from keras import ops

    found = (getattr(model, "backbone", model) if bare else model)(
        features, training=False
    )
    found = found if isinstance(found, dict) else {"logits": found}
    return {name: ops.convert_to_numpy(value) for name, value in found.items()}


def main(folder):
    sys.meta_path.insert(0, Refuse())
    for path in sorted(pathlib.Path(folder).glob("[0-9]*.npz")):
        with np.load(path) as file:
            features = dict(file)
        task, preset, bare = features.pop("how").tolist()
        model, _ = opened(task, preset)
        made = outputs(model, features, bare == "True")
        np.savez(path.with_name(f"out_{path.name}"), **made)
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main(*sys.argv[1:])
