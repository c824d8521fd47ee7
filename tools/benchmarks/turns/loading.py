"""Time and memory from `from_preset` to the first output.

`python -m turns.loading LIBRARY FOLDER converted` measures once, and prints
its numbers as JSON. Imports are not counted. With `new` in place of
`converted`, this package finds no copy of the weights in its own format.
"""

import json
import os
import pathlib
import sys
import tempfile
import time

from turns.peak import peak_above
from turns.peak import resident_bytes
from turns.samples import features

TOKENS = 32


def command(contender, saved):
    """The command that measures a contender once."""
    converted = contender.settings.get("converted", True)
    values = saved.path(contender.file), "converted" if converted else "new"
    program = [sys.executable, "-m", "turns.loading", contender.library]
    return [*program, *map(str, values)]


def measured(open_model):
    """Load a model and run it once.

    Args:
        open_model: callable that returns a callable from `features` to
            outputs, and the side of the pictures.

    Returns:
        dict: `seconds` of all, `processor` seconds, and the peak of
        `gigabytes` above what was there before.
    """
    started, processor = time.perf_counter(), time.process_time()
    with peak_above(resident_bytes()) as peak:
        run, side = open_model()
        # Until the model is there: a first output also compiles.
        loaded = peak.bytes
        run(features(1, side, TOKENS))
        seconds = time.perf_counter() - started
    return {
        "seconds": seconds,
        "processor seconds": time.process_time() - processor,
        "gigabytes": peak.bytes / 1e9,
        "gigabytes loaded": loaded / 1e9,
    }


def keras_bridgetower(folder):
    """This package, and how its reading compares with that of a plain file."""
    import keras_bridgetower as kbt
    from keras_bridgetower.presets import registry

    spent = []

    def timed(function):
        def call(*args, **kwargs):
            started = time.perf_counter()
            try:
                return function(*args, **kwargs)
            finally:
                spent.append(time.perf_counter() - started)

        return call

    # All that is neither graph building nor compilation.
    registry.open_preset = timed(registry.open_preset)
    registry.load_backbone = timed(registry.load_backbone)
    cls = kbt.BridgeTowerBackbone

    def open_model():
        backbone = cls.from_preset(folder)
        return backbone.predict_on_batch, backbone.input["images"].shape[1]

    numbers = measured(open_model)
    file = pathlib.Path(registry.resolve(folder)) / "model.weights.h5"
    started = time.perf_counter()
    file.read_bytes()
    plain = time.perf_counter() - started
    return numbers | {
        "weights / plain read": sum(spent[:2]) / plain,
        "loaded / weights": numbers["gigabytes loaded"]
        * 1e9
        / file.stat().st_size,
    }


def transformers(folder):
    """transformers on PyTorch."""
    import torch
    from transformers import BridgeTowerModel

    device = "cuda" if torch.cuda.is_available() else "cpu"

    def open_model():
        model = BridgeTowerModel.from_pretrained(folder).eval().to(device)

        def run(made):
            images = made["images"].transpose(0, 3, 1, 2)
            x = {
                "pixel_values": torch.tensor(images),
                "input_ids": torch.tensor(made["token_ids"]).long(),
                "attention_mask": torch.tensor(made["padding_mask"]).long(),
            }
            with torch.inference_mode():
                model(**{k: v.to(device) for k, v in x.items()})[0].cpu()

        return run, model.config.vision_config.image_size

    numbers = measured(open_model)
    size = (pathlib.Path(folder) / "model.safetensors").stat().st_size
    return numbers | {
        "loaded / weights": numbers["gigabytes loaded"] * 1e9 / size
    }


LIBRARIES = {
    "keras_bridgetower": keras_bridgetower,
    "transformers": transformers,
}


def main():
    library, folder, state = sys.argv[1:]
    measure = LIBRARIES[library]
    if state == "converted":
        print(json.dumps(measure(folder)))
        return
    with tempfile.TemporaryDirectory() as home:
        os.environ["KERAS_HOME"] = home
        print(json.dumps(measure(folder)))


if __name__ == "__main__":
    main()
