"""Measures what encoders and managers cost at base width, with random weights.

    python examples/ablations.py encoders --costs

Each pair of encoders is measured by PyTorch in a process of its own. A training
step takes two pairs of a picture of 224 pixels and a text of 32 tokens, with
AdamW. FLOPs are those of one pair, forward. A cached pair is a picture and a
text whose states are known, as `rank` computes it. Memory is the peak of the
process after the training steps, above that of Python with its libraries.
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
import torch
from torch.utils.flop_counter import FlopCounterMode

import keras_bridgetower as kbt

OUTPUT = pathlib.Path("runs", "encoder-costs")
CALL = "import encoder_costs; encoder_costs.show"
SIDE, TOKENS, STEP_ROWS, PAIR_ROWS = 224, 32, 2, 8
WIDTH = {"hidden_dim": 768, "num_layers": 12, "num_heads": 12}
_IMAGE = {**WIDTH, "patch_size": 16, "image_shape": (SIDE, SIDE, 3)}
_FFN = {"intermediate_dim": 3072}
hub = keras_hub.models


def efficientnet_lite0():
    """EfficientNet-Lite0, whose blocks have no squeeze and excitation."""
    return hub.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 7,
        stackwise_depth_coefficients=[1.0] * 7,
        stackwise_squeeze_and_excite_ratios=[0] * 7,
        stackwise_kernel_sizes=[3, 3, 5, 3, 5, 5, 3],
        stackwise_num_repeats=[1, 2, 2, 3, 3, 4, 1],
        stackwise_input_filters=[32, 16, 24, 40, 80, 112, 192],
        stackwise_output_filters=[16, 24, 40, 80, 112, 192, 320],
        stackwise_expansion_ratios=[1, 6, 6, 6, 6, 6, 6],
        stackwise_strides=[1, 2, 2, 2, 1, 2, 1],
        stackwise_block_types=["v1"] * 7,
        activation="relu6",
        input_shape=(SIDE, SIDE, 3),
    )


def resnet50():
    return hub.ResNetBackbone(
        input_conv_filters=[64],
        input_conv_kernel_sizes=[7],
        stackwise_num_filters=[64, 128, 256, 512],
        stackwise_num_blocks=[3, 4, 6, 3],
        stackwise_num_strides=[1, 2, 2, 2],
        block_type="bottleneck_block",
        image_shape=(SIDE, SIDE, 3),
    )


def swin_tiny():
    return hub.SwinTransformerBackbone(
        image_shape=(SIDE, SIDE, 3),
        embed_dim=96,
        depths=[2, 2, 6, 2],
        num_heads=[3, 6, 12, 24],
        window_size=7,
    )


IMAGE_ENCODERS = {
    "CLIP": lambda: hub.CLIPVisionEncoder(**_IMAGE, **_FFN),
    "ViT": lambda: hub.ViTBackbone(**_IMAGE, mlp_dim=3072),
    "DeiT": lambda: hub.DeiTBackbone(**_IMAGE, **_FFN),
    "SigLIP": lambda: hub.SigLIPVisionEncoder(**_IMAGE, **_FFN),
    "MetaCLIP 2": lambda: hub.MetaCLIP2VisionEncoder(**_IMAGE, **_FFN),
    "DINOv2": lambda: hub.DINOV2Backbone(
        **_IMAGE | {"patch_size": 14},
        **_FFN,
        num_register_tokens=4,
        position_embedding_shape=(SIDE, SIDE, 3),
    ),
    "DINOv3": lambda: hub.DINOV3Backbone(
        **_IMAGE, **_FFN, num_register_tokens=4
    ),
    "EfficientNet-Lite0": efficientnet_lite0,
    "ResNet-50": resnet50,
    "Swin-T": swin_tiny,
}
PYRAMIDS = ("EfficientNet-Lite0", "ResNet-50", "Swin-T")


def _text(cls, vocabulary_size, **values):
    sizes = {**WIDTH, **_FFN, **values}
    return lambda: getattr(hub, cls)(vocabulary_size=vocabulary_size, **sizes)


TEXT_ENCODERS = {
    "RoBERTa": _text("RobertaBackbone", 50_265),
    "XLM-RoBERTa": _text("XLMRobertaBackbone", 250_002),
    "BERT": _text("BertBackbone", 30_522),
    "DistilBERT": _text("DistilBertBackbone", 30_522, num_layers=6),
    "ELECTRA": lambda: hub.ElectraBackbone(
        vocab_size=30_522, embedding_dim=768, **WIDTH, **_FFN
    ),
    "ALBERT": _text("AlbertBackbone", 30_000, embedding_dim=128),
    "DeBERTa-v3": _text("DebertaV3Backbone", 128_100),
    "MiniLM": _text(
        "BertBackbone",
        30_522,
        hidden_dim=384,
        intermediate_dim=1536,
        num_layers=6,
    ),
    "CLIP text": _text(
        "CLIPTextEncoder",
        49_408,
        embedding_dim=512,
        hidden_dim=512,
        num_heads=8,
        intermediate_dim=2048,
    ),
    "SigLIP text": _text("SigLIPTextEncoder", 32_000, embedding_dim=768),
}
BRIDGES = {
    "METER": None,
    "BridgeTower": "add",
    "static managers": "static_manager",
    "ManagerTower": "adaptive_manager",
}
# Each image encoder beside RoBERTa, each text encoder beside CLIP, and each way
# of joining those two. Name, image encoder, text encoder, bridge.
PAIRS = {
    **{f"{x} + RoBERTa": (x, "RoBERTa", "add") for x in IMAGE_ENCODERS},
    **{f"CLIP + {x}": ("CLIP", x, "add") for x in TEXT_ENCODERS},
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
    lines = [f"| pair | {' | '.join(COLUMNS.values())} |"]
    lines.append(f"|---|{'---|' * len(COLUMNS)}")
    lines += [
        f"| {name} | {' | '.join(f'{row[key]:.3g}' for key in COLUMNS)} |"
        for name, row in rows.items()
    ]
    text = "\n".join(lines) + "\n"
    (output / "table.md").write_text(text)
    return text


def show(name):
    """Print what a pair costs, as JSON."""
    print(json.dumps(measure(*PAIRS[name])))


def measure(image, text, bridge):
    """Return what a pair of encoders costs.

    Args:
        image, text: str, keys of `IMAGE_ENCODERS` and `TEXT_ENCODERS`.
        bridge: str or None, as `BridgeTowerBackbone` takes it.
    """
    before = peak()
    per_layer = image in PYRAMIDS
    backbone = kbt.BridgeTowerBackbone(
        IMAGE_ENCODERS[image](),
        TEXT_ENCODERS[text](),
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
