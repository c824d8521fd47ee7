"""The training step compiles for TPUs, by the TPU compiler, without a TPU."""

import json
import os
import pathlib
import subprocess
import sys

import pytest
from builders import FASTEST

# Minutes: libtpu compiles a whole step, with two cores.
pytestmark = [pytest.mark.slow, FASTEST]
ROOT = pathlib.Path(__file__).parents[2]
# Bytes that a step may send for each weight: its gradient in bfloat16, with
# `fsdp` the weight too, and some pictures that matching draws from the next
# device. Model parallelism sends activations.
SENDS = {"data_parallel": 5, "fsdp": 5, "model_parallel": None}


@pytest.mark.parametrize("kind", SENDS)
def test_a_step_compiles_for_a_tpu(kind):
    pytest.importorskip("libtpu", reason="the extra `tpu`")
    command = [sys.executable, "tools/compile_for_tpu.py", "pretrain_base"]
    command += ["--size", "tiny", "--devices", "v5e:2x2", "--kind", kind]
    run = subprocess.run(
        command,
        cwd=ROOT,
        env={**os.environ, "KERAS_BACKEND": "jax"},
        capture_output=True,
        text=True,
    )
    assert run.returncode == 0, run.stderr[-2000:]
    found = json.loads(run.stdout)
    assert found["float64"] == found["host"] == 0
    assert found["bytes"]["peak"] < found["memory"]
    sent = sum(x["bytes"] for x in found["sent"].values())
    assert 2 * found["parameters"] < sent
    assert SENDS[kind] is None or sent < SENDS[kind] * found["parameters"]
