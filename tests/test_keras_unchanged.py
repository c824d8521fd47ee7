"""The package replaces no attribute of Keras, TensorFlow, JAX or PyTorch."""

import json
import pathlib

import launch
from launch import BACKEND

RUN = pathlib.Path(__file__).parent / "unchanged_run.py"
ENVIRONMENT = {
    "jax": {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
    "tensorflow": {},
    "torch": launch.several_processes(1)[0],
}[BACKEND]


def test_no_attribute_of_a_framework_is_replaced(tmp_path):
    """Compare classes and modules before the import and after each step."""
    file = tmp_path / "found.json"
    # A process of its own, because the tests have imported the package.
    launch.codes(launch.started([[RUN, file, "data_parallel"]], [ENVIRONMENT]))
    found = json.loads(file.read_text())
    assert {"import", "data_parallel", "save and load"} < set(found)
    assert {step: names for step, names in found.items() if names} == {}
