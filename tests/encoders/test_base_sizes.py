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
from test_encoder_peers import compared
from test_encoder_peers import opened
from test_encoder_peers import padding_leak
from test_encoder_peers import parameters_of

RESULTS = pathlib.Path(__file__).parents[2] / "docs/results/encoders"

pytestmark = pytest.mark.slow


def error(got, expected):
    """Largest difference, in shares of the largest value."""
    return float(np.abs(got - expected).max() / np.abs(expected).max())


@pytest.mark.parametrize("peer", base_peers(), ids=lambda p: f"{p}-{p.side}")
def test_states_at_base_size(peer, tmp_path):
    model = peer.make()
    model.save_pretrained(tmp_path)
    inputs = peers.inputs_for(peer)
    expected, parameters = peer.states(model, inputs), peer.parameters(model)
    del model
    tower, pairs = compared(peer, opened(peer, tmp_path), expected, inputs)
    worst = max(error(x, wanted) for x, wanted in pairs)
    leak = padding_leak(tower, inputs) if peer.side == "text" else None
    record(peer, parameters, worst, leak)
    assert parameters_of(tower) == parameters
    assert worst <= 1e-5
    assert not (peer.masked and leak)


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
