"""Adapters and quantized layers, written for programs that know of neither."""

import checkpoints
import numpy as np
import peer
import pytest
import torch
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference
from builders import features
from builders import run
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private.layers import layers_in

pytestmark = LONG_ELSEWHERE


@pytest.fixture(scope="module")
def task(tmp_path_factory):
    """A task of transformers' weights, adapted in body and head."""
    root = tmp_path_factory.mktemp("theirs")
    checkpoints.theirs().save_pretrained(root / "model")
    with pytest.warns(UserWarning, match="no tokenizer files"):
        task = kbt.BridgeTowerRetrieval.from_preset(root / "model")
    task.enable_lora(2)
    dense = next(iter(layers_in(task.heads["itm"])))
    dense.enable_lora(2)
    task.backbone.text_encoder.token_embedding.enable_lora(3, lora_alpha=1.5)
    return adapted(task)


def adapted(model):
    """Adapters that change what the model says."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "lora_" in weight.path:
            weight.assign(rng.normal(size=weight.shape, scale=0.2))
    return model


def logits(task):
    return array(task(peer.inputs(checkpoints.SIZE)[0], training=False))


def test_merged_for_transformers(task, tmp_path):
    task.export_to_transformers(tmp_path / "theirs")
    theirs = checkpoints.HEADS["itm"].from_pretrained(tmp_path / "theirs")
    _, inputs = peer.inputs(checkpoints.SIZE)
    with torch.no_grad():
        found = theirs.eval()(**inputs).logits.numpy()
    assert difference(found, logits(task)) <= 1e-5
    # The adapters are still there, and count.
    task.backbone.text_encoder.token_embedding.lora_embeddings_b.assign(
        task.backbone.text_encoder.token_embedding.lora_embeddings_b * 2
    )
    assert difference(found, logits(task)) > 1e-3


@FASTEST
def test_merged_for_another_image_size():
    model = shallow()
    model.enable_lora(2)
    expected = run(adapted(model), features())["pooled"]
    resized = model.with_image_size(model.image_size)
    assert difference(run(resized, features())["pooled"], expected) <= 1e-6
    assert model.with_image_size(48).image_size == 48
