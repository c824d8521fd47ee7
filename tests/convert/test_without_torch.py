"""Weights of `torch.save` where PyTorch cannot be imported."""

import os
import pathlib
import subprocess
import sys

import checkpoints
import keras
import numpy as np
import official
import peer
import pytest
import torch
from builders import difference

from keras_bridgetower.convert import authors
from keras_bridgetower.convert import by_hand as self_check

RUN = pathlib.Path(__file__).with_name("without_torch_run.py")

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "tensorflow",
    reason="one backend other than PyTorch: files are read without any",
)


def folder_of_transformers(path):
    """A folder with `pytorch_model.bin`, as the published ones."""
    model = checkpoints.theirs()
    model.config.save_pretrained(path)
    torch.save(model.state_dict(), path / "pytorch_model.bin")
    return model.bridgetower


def file_of_the_authors(path):
    state = official.save(path, "vqa")
    model = peer.peer(peer.SMALL).bridgetower
    model.load_state_dict(official.as_transformers(state))
    self_check.set_cross_modal_epsilon(model, authors.LAYER_NORM_EPSILON)
    return model


def test_outputs_are_those_of_transformers(tmp_path):
    models = {
        "folder": folder_of_transformers(tmp_path / "folder"),
        "file": file_of_the_authors(tmp_path / "model.ckpt"),
    }
    mine, theirs = peer.inputs(peer.SMALL)
    np.savez(tmp_path / "inputs.npz", **mine)
    subprocess.run(
        [sys.executable, str(RUN)],
        env={
            **os.environ,
            "KERAS_HOME": str(tmp_path / "home"),
            "PYTHONPATH": os.pathsep.join(path for path in sys.path if path),
        },
        cwd=tmp_path,
        check=True,
    )
    kept = mine["padding_mask"] == 1
    for source, model in models.items():
        found = np.load(tmp_path / f"{source}.npz")
        with torch.no_grad():
            out = model(**theirs)
        text = difference(found["text"][kept], out.text_features.numpy()[kept])
        assert text <= 1e-5
        assert difference(found["image"], out.image_features.numpy()) <= 1e-5
        assert difference(found["pooled"], out.pooler_output.numpy()) <= 1e-5
