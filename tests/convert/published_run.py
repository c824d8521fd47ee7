"""A process without torch that opens published repositories, for a test.

Run as `python published_run.py FEATURES OUTPUTS`; both are `.npz` files.
"""

import importlib.abc
import sys
import warnings

import numpy as np


class Refuse(importlib.abc.MetaPathFinder):
    """Makes the import of torch an error, as where it is not installed."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


OPENED = {
    "MaskedLM": "bridgetower_base_itm_mlm",
    "Contrastive": "hf://BridgeTower/bridgetower-large-itm-mlm-itc",
}


def main(source, target):
    sys.meta_path.insert(0, Refuse())
    import keras

    import keras_bridgetower as kbt

    warnings.simplefilter("ignore")  # The weights are not the published ones.
    made = {}
    with np.load(source) as file:
        for task, preset in OPENED.items():
            prefix = f"{task} "
            features = {
                name.removeprefix(prefix): value
                for name, value in file.items()
                if name.startswith(prefix)
            }
            model = getattr(kbt, f"BridgeTower{task}").from_preset(preset)
            found = model(features, training=False)
            found = found if isinstance(found, dict) else {"logits": found}
            made |= {
                prefix + name: keras.ops.convert_to_numpy(value)
                for name, value in found.items()
            }
    assert "torch" not in sys.modules
    np.savez(target, **made)


if __name__ == "__main__":
    main(*sys.argv[1:])
