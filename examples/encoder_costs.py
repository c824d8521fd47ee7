"""Measures what encoders and managers cost at base width, with random weights.

    python examples/ablations.py encoders --costs

Each pair of encoders is measured by PyTorch in its own process. A training step
takes two pairs of a picture of 224 pixels and a text of 32 tokens, with AdamW.
FLOPs are those of one pair, forward. A cached pair has known states of picture
and text, as in `rank`. Memory is the peak of the process after the training
steps, above that of Python with its libraries.
"""

import json
import os
import pathlib
import resource
import subprocess
import sys
import time

os.environ["KERAS_BACKEND"] = "torch"  # whose counter of FLOPs it uses

import keras
import keras_hub
import numpy as np
import reports
import torch
from torch.utils.flop_counter import FlopCounterMode

import keras_bridgetower as kbt

OUTPUT = pathlib.Path("runs", "encoder-costs")
CALL = "import encoder_costs; encoder_costs.show"
SIDE, TOKENS, STEP_ROWS, PAIR_ROWS = 224, 32, 2, 8
hub = keras_hub.models
# By side and name: the class, its values, and the values that it shares.
ENCODERS = json.loads(pathlib.Path(__file__).with_suffix(".json").read_text())
PYRAMIDS = ("EfficientNet-Lite0", "ResNet-50", "Swin-T")


def encoder(side, name):
    row = dict(ENCODERS[side][name])
    cls = getattr(hub, row.pop("class"))
    values = ENCODERS["shared"][row.pop("shared", side)] | row
    shapes = {k: tuple(v) for k, v in values.items() if k.endswith("shape")}
    return cls(**values | shapes)


BRIDGES = {
    "METER": None,
    "BridgeTower": "add",
    "static managers": "static_manager",
    "ManagerTower": "adaptive_manager",
}
# Each image encoder beside RoBERTa, each text encoder beside CLIP, and each way
# of joining those two. Name, image encoder, text encoder, bridge.
PAIRS = {
    **{f"{x} + RoBERTa": (x, "RoBERTa", "add") for x in ENCODERS["image"]},
    **{f"CLIP + {x}": ("CLIP", x, "add") for x in ENCODERS["text"]},
    **{
        f"CLIP + RoBERTa, {name}": ("CLIP", "RoBERTa", bridge)
        for name, bridge in BRIDGES.items()
        if bridge != "add"
    },
}
COLUMNS = {
    "parameters": "parameters, M",
    "flops": "FLOPs of a pair, G",
    "step": "training step, s a pair",
    "pair": "cached pair, s",
    "memory": "memory, GB",
}


def table(output):
    """Measure the pairs that are not there yet, and return the table."""
    output.mkdir(parents=True, exist_ok=True)
    rows = {}
    for name in PAIRS:
        file = output / f"{name}.json"
        if not file.exists():
            print(f"{name} ...", flush=True)
            found = subprocess.run(
                [sys.executable, "-c", f"{CALL}({name!r})"],
                cwd=pathlib.Path(__file__).parent,
                check=True,
                capture_output=True,
                text=True,
            ).stdout
            file.write_text(found.splitlines()[-1] + "\n")
        rows[name] = json.loads(file.read_text())
    lines = [("pair", *COLUMNS.values())]
    lines += [
        (name, *(f"{row[key]:.3g}" for key in COLUMNS))
        for name, row in rows.items()
    ]
    text = reports.markdown(lines)
    (output / "table.md").write_text(text)
    return text


def show(name):
    """Print what a pair costs, as JSON."""
    print(json.dumps(measure(*PAIRS[name])))


def measure(image, text, bridge):
    """Return the costs of a pair of encoders, by the keys of `COLUMNS`."""
    before = peak()
    per_layer = image in PYRAMIDS
    backbone = kbt.BridgeTowerBackbone(
        encoder("image", image),
        encoder("text", text),
        bridge=bridge,
        projections="per_layer" if per_layer else "shared",
    )
    task = kbt.BridgeTowerVQA(backbone, answers=[str(i) for i in range(3129)])
    features = inputs(backbone, STEP_ROWS)
    return {
        "parameters": backbone.count_params() / 1e6,
        "flops": flops(backbone, inputs(backbone, 1)) / 1e9,
        "pair": seconds_of_a_pair(backbone) / PAIR_ROWS,
        "step": seconds_of_a_step(task, features) / STEP_ROWS,
        "memory": (peak() - before) / 1e9,
    }


def inputs(backbone, rows):
    rng = np.random.default_rng(0)
    encoder = backbone.text_encoder
    # SigLIP reads texts of one length, with an id in front.
    tokens = TOKENS
    if isinstance(encoder, hub.SigLIPTextEncoder):
        tokens = encoder.max_sequence_length + 1
    ids = rng.integers(5, 1000, (rows, tokens)).astype("int32")
    made = {
        "images": rng.normal(size=(rows, SIDE, SIDE, 3)).astype("float32"),
        "token_ids": ids,
        "padding_mask": np.ones_like(ids),
        "segment_ids": np.zeros_like(ids),
    }
    return {name: made[name] for name in backbone.input}


def flops(backbone, features):
    """Return the FLOPs of a forward pass, by PyTorch's own counter."""
    with FlopCounterMode(display=False) as counter:
        backbone.fuse(tensors(features), outputs=("pooled",))
    return counter.get_total_flops()


def tensors(features):
    return {k: keras.ops.convert_to_tensor(v) for k, v in features.items()}


def seconds_of_a_pair(backbone):
    """Return the time of the fusion above the projections."""
    features = tensors(inputs(backbone, PAIR_ROWS))
    text = {name: features[name] for name in backbone.text_tower.input}
    fusion = backbone.fusion
    with torch.no_grad():
        states = (
            fusion.project_text(backbone.text_tower(text)),
            fusion.project_image(backbone.image_tower(features["images"])),
        )
        mask = features["padding_mask"]
        return timed(lambda: fusion.join(*states, mask, outputs=("pooled",)))


def seconds_of_a_step(task, features):
    task.compile(keras.optimizers.AdamW(1e-5))
    targets = np.zeros((STEP_ROWS, 3129), "float32")
    return timed(lambda: task.train_on_batch(features, targets))


def timed(function):
    """Return the shortest of three times, after a first run."""
    function()
    found = []
    for _ in range(3):
        started = time.perf_counter()
        function()
        found.append(time.perf_counter() - started)
    return min(found)


def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
