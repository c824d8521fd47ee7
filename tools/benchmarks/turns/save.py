"""Write a random model."""

import functools
import shutil

import numpy as np
import peer
import torch
import transformers
from transformers.utils import is_torchvision_available

import keras_bridgetower as kbt
from keras_bridgetower.tasks import ranking
from turns import samples

SIZES = {"base": peer.BASE, "large": peer.LARGE, "small": peer.SMALL}
# Rows for the ranges of int8: the weights are random, and only speed counts.
CALIBRATED = 8
# A tokenizer of letters and a few words, enough to time one.
WORDS = ("Ġ r", "Ġr e", "Ġre d", "Ġ c", "a t", "Ġc at", "o g", "Ġ d", "Ġd og")


def checkpoint(path, saved):
    """Write a folder of transformers with processor, picture and answers."""
    size = SIZES[saved.size]
    size = size | {"side": saved.side or size["side"]}
    peer.peer(size).save_pretrained(path)
    processor(size["side"], size.get("patch", 16)).save_pretrained(path)
    samples.write_picture(path / saved.picture.name)
    np.savez(path / saved.answers.name, *samples.answer_weights(size["hidden"]))


def processor(side, patch):
    tokens = [*"Ġabcdefghijklmnopqrstuvwxyz?.,"]
    tokens += [merge.replace(" ", "") for merge in WORDS]
    tokens = ["<s>", "<pad>", "</s>", "<unk>", *tokens, "<mask>"]
    tokenizer = transformers.RobertaTokenizer(
        vocab={token: number for number, token in enumerate(tokens)},
        merges=[tuple(merge.split()) for merge in WORDS],
    )
    values = {"shortest_edge": side}
    cls = transformers.BridgeTowerImageProcessorPil
    if is_torchvision_available():
        cls = transformers.BridgeTowerImageProcessor
    images = cls(size=values, crop_size=values, size_divisor=patch)
    return transformers.BridgeTowerProcessor(images, tokenizer)


def pytorch(path, saved):
    """Write the same model as a file of `torch.save`."""
    path.mkdir()
    model = transformers.BridgeTowerForImageAndTextRetrieval.from_pretrained(
        saved.path("checkpoint")
    )
    model.config.save_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")


def onnx(path, saved, calibrated=0):
    """Write the matching task in ONNX, in int8 if rows are `calibrated` on."""
    task = kbt.BridgeTowerRetrieval.from_preset(
        str(saved.path("checkpoint")), preprocessor=None
    )
    side, calibration = task.input["images"].shape[1], None
    if calibrated:
        calibration = samples.features(calibrated, side, 32)
    path.mkdir()
    task.export(path / "model.onnx", format="onnx", calibration=calibration)


def ranking_parts(path, saved, tokens=None, calibrated=0):
    """Write both towers and the fusion in ONNX, the fusion perhaps in int8.

    `tokens` is the number of merged image tokens, `calibrated` that of pairs
    for the ranges of int8, or 0 for float32.
    """
    task = kbt.BridgeTowerRetrieval.from_preset(
        str(saved.path("checkpoint")), preprocessor=None, image_tokens=tokens
    )
    side, calibration = task.input["images"].shape[1], None
    if calibrated:
        features = samples.features(calibrated, side, 32)
        images = {"images": features.pop("images")}
        parts = ranking.ranking_parts(task)
        calibration = {
            "text_states": parts.text(features)["states"],
            "image_states": parts.image(images)["states"],
        }
        calibration = {k: x.detach().numpy() for k, x in calibration.items()}
        calibration["padding_mask"] = features["padding_mask"]
    path.mkdir()
    for part, given in (
        ("text_tower", None),
        ("image_tower", None),
        ("fusion", calibration),
    ):
        file = path / f"{part}.onnx"
        task.export(file, format="onnx", part=part, calibration=given)


WRITERS = {
    "checkpoint": checkpoint,
    "pytorch": pytorch,
    "float32_onnx": onnx,
    "int8_onnx": functools.partial(onnx, calibrated=CALIBRATED),
    "fusion": ranking_parts,
    "fusion_int8": functools.partial(ranking_parts, calibrated=CALIBRATED),
    "fusion_96": functools.partial(ranking_parts, tokens=96),
    "fusion_96_int8": functools.partial(
        ranking_parts, tokens=96, calibrated=CALIBRATED
    ),
}


def write(name, saved):
    """Write one of `WRITERS`."""
    saved.folder.mkdir(parents=True, exist_ok=True)
    # An earlier process may have left it half written.
    unfinished = saved.path(f"{name}.unfinished")
    shutil.rmtree(unfinished, ignore_errors=True)
    WRITERS[name](unfinished, saved)
    unfinished.rename(saved.path(name))
    if name == "checkpoint":
        # Convert it once: the works do not time that.
        kbt.BridgeTowerRetrieval.from_preset(str(saved.path(name)))
