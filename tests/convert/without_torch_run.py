"""Opens weights in a process in which importing PyTorch raises.

Called by `test_without_torch.py` in a folder that holds what it opens.
"""

import sys

import numpy as np


class NoTorch:
    """A finder that knows one thing: there is no torch."""

    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "torch":
            raise ImportError("PyTorch must not be imported here.")


def main():
    sys.meta_path.insert(0, NoTorch())
    import keras_bridgetower as kbt
    from keras_bridgetower.convert import authors

    inputs = dict(np.load("inputs.npz"))
    for name, backbone in (
        ("folder", kbt.BridgeTowerBackbone.from_preset("./folder")),
        ("file", authors.read("model.ckpt").build()[0]),
    ):
        found = backbone(inputs, training=False)
        np.savez(name, **{key: np.asarray(x) for key, x in found.items()})
    assert "torch" not in sys.modules


if __name__ == "__main__":
    main()
