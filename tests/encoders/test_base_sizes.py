"""Every encoder at base size: states of `transformers`, and a table of them.

    KERAS_BACKEND=torch pytest -m slow tests/encoders/test_base_sizes.py

writes a result of the backend, of which `tools/encoder_table.py` makes a table.
"""

import json
import pathlib

import keras
import numpy as np
import peers
import pytest
from base_sizes import base_peers
from builders import array
from builders import run
from test_encoder_peers import given
from test_encoder_peers import opened

import keras_bridgetower as kbt

RESULTS = pathlib.Path(__file__).parents[2] / "docs/results/encoders"

pytestmark = pytest.mark.slow


def states_model(encoder, peer, grids):
    if grids:
        return keras.Model(encoder.inputs[0], kbt.hidden_states(encoder))
    count = len(kbt.hidden_states(encoder))
    return kbt.Tower(encoder, range(-count, 0), summary=peer.summary)


def error(got, expected):
    """Largest difference, in shares of the largest value."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("peer", base_peers(), ids=lambda p: f"{p}-{p.side}")
def test_states_at_base_size(peer, tmp_path):
    model = peer.make()
    model.save_pretrained(tmp_path)
    encoder = opened(peer, tmp_path)
    inputs = peers.inputs_for(peer)
    expected = peer.states(model, inputs)
    parameters = peer.parameters(model)
    del model
    grids = any(x is not None and x.ndim == 4 for x in expected)
    tower = states_model(encoder, peer, grids)
    got = [array(x) for x in run(tower, given(tower, inputs))]
    rows = slice(None)
    if peer.side == "text":
        rows = inputs["padding_mask"] == 1
    worst = 0
    for x, wanted in zip(got, expected, strict=True):
        if wanted is None:
            continue
        if not grids:
            x = x[:, x.shape[1] - wanted.shape[1] :]
        if peer.side == "text" and peer.masked:
            x, wanted = x[rows], wanted[rows]
        worst = max(worst, error(x, wanted))
    leak = padding_leak(tower, inputs) if peer.side == "text" else None
    record(peer, parameters, worst, leak)
    ours = sum(
        int(np.prod(w.shape))
        for w in tower.weights
        if "position_ids" not in w.path
    )
    assert ours == parameters
    assert worst <= 1e-5
    assert not (peer.masked and leak)


def padding_leak(tower, inputs):
    """Largest change of states at words when the padding ids change."""
    inputs = given(tower, inputs)
    mask = inputs["padding_mask"]
    ids = np.where(mask, inputs["token_ids"], 7).astype("int32")
    before, after = run(tower, inputs), run(tower, {**inputs, "token_ids": ids})
    return max(
        float(np.abs(array(a)[mask == 1] - array(b)[mask == 1]).max())
        for a, b in zip(before, after, strict=True)
    )


def record(peer, parameters, worst, leak):
    """Write a row of the table of this backend."""
    path = RESULTS / f"{keras.config.backend()}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = json.loads(path.read_text()) if path.exists() else {}
    rows[f"{peer.side} {peer.name}"] = {
        "parameters": parameters,
        "difference": float(f"{worst:.1e}"),
        "leak": leak,
    }
    ordered = dict(sorted(rows.items()))
    path.write_text(json.dumps(ordered, indent=2) + "\n")
