"""The works of exported models, without Keras: see `ours`."""

import runpy
from importlib.util import find_spec

import numpy as np

from turns import samples


def forward(saved, contender):
    model = _loaded(saved, contender, "model")

    def prepare(batch, tokens):
        x = samples.features(batch, saved.pixels(), tokens)
        return lambda: np.asarray(next(iter(model(x).values())), "float32")

    return prepare


def ranking(saved, contender):
    text_tower, image_tower, fusion = (
        _loaded(saved, contender, name)
        for name in ("text_tower", "image_tower", "fusion")
    )

    def prepare(batch, tokens):
        images, text = samples.pictures_and_text(batch, saved.pixels(), tokens)
        kept = image_tower({"images": images})["states"]
        mask = np.repeat(text["padding_mask"], batch, 0)

        def turn():
            states = np.repeat(text_tower(text)["states"], batch, 0)
            inputs = {"text_states": states, "image_states": kept}
            found = fusion({**inputs, "padding_mask": mask})
            return np.asarray(found["itm_logits"], "float32")[:, -1:]

        return turn

    return prepare


def _loaded(saved, contender, name):
    """Load an exported file, as an exported `run.py` does."""
    (folder,) = find_spec("keras_bridgetower").submodule_search_locations
    run = runpy.run_path(f"{folder}/models/exporting/runtime.py")
    path = saved.path(contender.file) / f"{name}.onnx"
    if contender.library == "openvino":
        precision = "bf16" if contender.dtype == "bfloat16" else "f32"
        model, _ = run["by_openvino"](path, precision=precision)
    else:
        model, _ = run["load"](path)
    return model
