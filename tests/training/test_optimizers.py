"""AdamW with rows, and the schedule, against torch and transformers."""

import re

import keras
import numpy as np
import pytest
import torch
import transformers
from builders import FASTEST
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import bert
from builders import clip
from builders import deit
from builders import roberta
from builders import slow_on
from builders import vit
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.encoders.roberta import PaddedRobertaBackbone
from keras_bridgetower.training.optim.adamw import DECAYS
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import WarmupPolynomial
from keras_bridgetower.training.optim.adamw import rows

BACKEND = keras.config.backend()


def group_of(path):
    """Return factor and decay by the authors' rule, for a VQA."""
    part = path.split("/")[0]
    is_type = path == "fusion/type_embedding"
    factor = {"fusion": 5, "vqa_head": 50}.get(part, 1)
    is_norm = path.endswith("gamma")
    # RoBERTa's and the fusion's norms do not decay; CLIP's and the head's do.
    text = part.startswith(("embeddings_layer_norm", "transformer_layer"))
    spared = is_norm and (text or part == "fusion")
    decays = not (path.endswith(("bias", "beta")) or spared)
    return 1 if is_type else factor, decays


@slow_on("tensorflow", "jax")
def test_equals_torch_with_parameter_groups():
    variables = vqa().trainable_variables
    rng = np.random.default_rng(0)
    theirs, groups = [], []
    for v in variables:
        parameter = torch.nn.Parameter(torch.tensor(array(v)))
        factor, decays = group_of(v.path)
        rates = {"lr": 1e-3 * factor, "weight_decay": 0.05 * decays}
        groups.append({"params": [parameter], **rates})
        theirs.append(parameter)
    reference = torch.optim.AdamW(groups, betas=(0.9, 0.98), eps=1e-8)
    ours = AdamW(1e-3, rows(fusion=5, head=50), weight_decay=0.05)
    for _ in range(20):
        # Away from 0, where the two forms of epsilon differ: Keras adds it
        # before the bias of the second moment is corrected.
        grads = [
            rng.choice([-1, 1], v.shape) * rng.uniform(0.5, 2, v.shape)
            for v in variables
        ]
        grads = [keras.ops.convert_to_tensor(g, "float32") for g in grads]
        for parameter, g in zip(theirs, grads, strict=True):
            parameter.grad = torch.tensor(array(g))
        reference.step()
        ours.apply(grads, variables)
    worst = max(
        np.abs(array(v) - p.detach().numpy()).max()
        for v, p in zip(variables, theirs, strict=True)
    )
    assert worst <= 1e-6, worst
    assert float(ours.learning_rate) == pytest.approx(1e-3)


class OneByOne(AdamW):
    def _backend_update_step(self, grads, variables, learning_rate):
        for gradient, variable in zip(grads, variables, strict=True):
            self.update_step(gradient, variable, learning_rate)


@pytest.mark.skipif(BACKEND != "torch", reason="the others take one at a time")
def test_grouped_updates_equal_single_updates(monkeypatch):
    from keras_bridgetower.training.optim import adamw_torch

    monkeypatch.setattr(adamw_torch, "CHUNK", 1000)
    # As on an accelerator.
    monkeypatch.setattr(adamw_torch, "known_to_be", lambda _: False)
    found = []
    for cls in (AdamW, OneByOne):
        keras.utils.set_random_seed(0)
        variables = vqa().trainable_variables
        optimizer = cls(1e-3, rows(base=None, fusion=5, head=50))
        rng = np.random.default_rng(0)
        for broken in (False, True, False):
            grads = [rng.normal(size=v.shape) for v in variables]
            grads = [keras.ops.convert_to_tensor(g, "float32") for g in grads]
            if broken:
                grads[-1] = grads[-1] * np.inf
            optimizer.apply(grads, variables)
        found.append([array(v) for v in (*variables, *optimizer.variables)])
    assert_same_weights(*found)


def padded_roberta(width):
    return PaddedRobertaBackbone.from_config(roberta(width).get_config())


@FASTEST
@pytest.mark.parametrize(
    "image_encoder, text_encoder, summary",
    [
        (clip, roberta, "learned"),
        (clip, padded_roberta, "attention_pool"),
        (deit, bert, None),
    ],
)
def test_sane_decay_applies_to_matrices_only(
    image_encoder, text_encoder, summary
):
    encoders = image_encoder(width=16), text_encoder(width=16)
    task = kbt.BridgeTowerVQA(
        backbone(*encoders, image_summary=summary), answers=["a", "b"]
    )
    spared = {
        v.path
        for v in task.trainable_variables
        if any(re.search(p, v.path) for p in DECAYS["sane"])
    }
    for v in task.trainable_variables:
        is_matrix = v.path.endswith(("kernel", "token_embedding/embeddings"))
        assert (v.path in spared) != is_matrix, v.path


@FASTEST
@pytest.mark.parametrize(
    "encoder, decays", [(clip, True), (vit, False), (deit, False)]
)
def test_decay_of_layer_norms_follows_the_scripts(encoder, decays):
    """`ln_1` of CLIP decays; `norm1` of ViT and DeiT is in the list."""
    task = kbt.BridgeTowerVQA(
        backbone(encoder(layers=2), roberta()), answers=["a"]
    )
    optimizer = AdamW()
    optimizer.build(task.trainable_variables)
    image = task.backbone.image_tower.weights
    norms = {v.path for v in image if v.path.endswith("gamma")}
    paths = [v.path for v in task.trainable_variables]
    found = dict(zip(paths, optimizer._decays, strict=True))
    # Two in each block, one at the end, CLIP's before the first block.
    assert len(norms) == 5 + decays
    assert {found[path] > 0 for path in norms} == {decays}


@FASTEST
@pytest.mark.parametrize("bridge", ["static_manager", "adaptive_manager"])
def test_managers_follow_the_scripts(bridge):
    """As the authors' function groups the names of their variables."""
    variables = backbone(bridge=bridge).trainable_variables
    optimizer = AdamW(rows=rows(1, 5, 50), weight_decay=1.0)
    optimizer.build(variables)
    for index, v in enumerate(variables):
        parts = v.path.split("/")
        if not ("_manager_" in v.path or parts[-1].endswith("_layers")):
            continue
        layers = parts[-1].endswith("_layers")
        assert optimizer._factors[index] == (1 if layers else 5), v.path
        spared = parts[-1] in ("bias", "beta") or "other_norm" in parts
        assert optimizer._decays[index] == (not spared), v.path
        sane = any(re.search(p, v.path) for p in DECAYS["sane"])
        assert sane == (parts[-1] != "kernel"), v.path


@slow_on("tensorflow", "jax")
def test_frozen_rows_do_not_change_or_count_in_the_norm():
    task = vqa()
    variables = task.trainable_variables
    before = {v.path: array(v) for v in variables}
    optimizer = AdamW(0.1, rows(base=None), epsilon=1.0, global_clipnorm=1.0)
    optimizer.apply([keras.ops.ones(v.shape) for v in variables], variables)
    moved = {v.path for v in variables if np.any(array(v) != before[v.path])}
    learning = {p for p in before if p.startswith(("fusion", "vqa_head"))}
    assert moved == learning - {"fusion/type_embedding"}
    # Clipped to norm 1 over trained variables: every element is 1 / sqrt(n).
    count = sum(before[path].size for path in moved)
    (bias,) = (v for v in variables if v.path == "vqa_head/output_dense/bias")
    slot = optimizer._momentums[optimizer._get_variable_index(bias)]
    np.testing.assert_allclose(array(slot), 0.1 / np.sqrt(count), rtol=1e-5)


@pytest.mark.parametrize("warmup, power", [(0.1, 1.0), (30, 2.0), (0, 1.0)])
def test_schedule_equals_transformers(warmup, power):
    total = 200
    steps = int(warmup * total) if isinstance(warmup, float) else warmup
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1e-3)
    theirs = transformers.get_polynomial_decay_schedule_with_warmup(
        optimizer, steps, total, lr_end=0.0, power=power
    )
    ours = WarmupPolynomial(1e-3, total, warmup, power)
    for step in range(total + 3):
        expected = theirs.get_last_lr()[0]
        assert float(ours(step)) == pytest.approx(expected, abs=1e-9)
        optimizer.step()
        theirs.step()


@slow_on("tensorflow")
def test_nonfinite_gradients_are_not_applied():
    variables = vqa().trainable_variables
    optimizer = AdamW(1e-2)
    good = [keras.ops.ones(v.shape) for v in variables]
    optimizer.apply(good, variables)
    state = [*variables, *optimizer._momentums, *optimizer._velocities]
    before = [array(v) for v in state]
    bad = [good[0] * float("nan"), *good[1:]]
    optimizer.apply(bad, variables)
    assert_same_weights(before, state)
    assert int(optimizer.skipped) == 1
    optimizer.apply(good, variables)
    assert np.any(array(variables[-1]) != before[len(variables) - 1])
    assert int(optimizer.skipped) == 1
