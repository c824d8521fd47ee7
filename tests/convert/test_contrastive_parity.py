"""The contrastive task and its loss equal those of transformers."""

import checkpoints
import numpy as np
import peer
import pytest
import torch
from builders import LONG_ELSEWHERE
from builders import array

import keras_bridgetower as kbt

pytestmark = LONG_ELSEWHERE


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


def test_outputs_loss_and_scale(tmp_path):
    theirs = checkpoints.theirs("itc")
    with torch.no_grad():
        # Another one than a new head starts with.
        theirs.logit_scale.fill_(1.9)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="no tokenizer files"):
        ours = kbt.BridgeTowerContrastive.from_preset(tmp_path / "theirs")
    assert (ours.ways, ours.projection_dim) == ("three_way", 24)

    features, inputs = peer.inputs(checkpoints.SIZE, batch=4)
    with torch.no_grad():
        expected = theirs(**inputs, return_loss=True)
    found = ours(features, training=False)
    for name, value in (
        ("text", expected.text_embeds),
        ("image", expected.image_embeds),
        ("fused", expected.cross_embeds),
    ):
        assert np.abs(array(found[name]) - value.numpy()).max() <= 1e-5

    scale = ours.heads["itc"].logit_scale
    assert float(array(scale)) == pytest.approx(1.9, abs=1e-7)
    ours.compile(jit_compile=False)
    loss, _ = ours.evaluate(features, verbose=0)
    assert abs(loss - float(expected.loss)) <= 1e-5
