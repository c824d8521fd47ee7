"""Files that start training on clusters: right for their tools and for ours."""

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys

import launch
import pytest
import typer
from builders import FASTEST

from keras_bridgetower.apps.cli import main
from keras_bridgetower.distribution.distribute import STRATEGIES
from keras_bridgetower.training import recipes
from keras_bridgetower.training import train

yaml = pytest.importorskip("yaml", reason="comes with the extra `docs`")

pytestmark = FASTEST
DEPLOY = pathlib.Path(__file__).parents[2] / "deploy"
SLURM = DEPLOY / "train.slurm"


def parsed(words):
    """Return the values that our command line takes from the words of one."""
    command = typer.main.get_command(main.application()).commands[words[0]]
    # Refuses options and values that the command does not have.
    return command.make_context(words[0], list(words[1:])).params


def jobset(name):
    """Return the only job of a file, and the container that it runs."""
    document = yaml.safe_load((DEPLOY / name).read_text())
    [job] = document["spec"]["replicatedJobs"]
    job = job["template"]["spec"]
    [container] = job["template"]["spec"]["containers"]
    return document, job, container


def check(values, backend):
    assert len(values["encoders"]) == 2 and values["data"] and values["out"]
    # Its fields exist.
    recipe = recipes.get(values["recipe"])
    assert train.with_changes(recipe, values["changes"]).dtype
    assert values["distribute"] in ("auto", *STRATEGIES[backend])


def test_slurm():
    text = SLURM.read_text().replace("\\\n", "")
    words = re.search(r"-m keras_bridgetower (.+)", text)[1]
    words = words.partition("||")[0]
    words = re.sub(r'"\$\{(\w+):\?[^}]+\}"', r"\1", words).split()
    check(parsed(words), "torch")
    # One launcher on each host, which starts a process for each GPU.
    assert "--ntasks-per-node=1" in text
    gpus = re.search(r"--gpus-per-node=(\d+)", text)[1]
    assert f"--nproc-per-node={gpus} " in text


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="extra `dev`")
def test_slurm_is_a_clean_script():
    subprocess.run(["shellcheck", SLURM], check=True)


def test_hosts_with_gpus():
    document, job, container = jobset("train_jobset.yaml")
    launcher = container["command"]
    words = launcher[launcher.index("keras_bridgetower") + 1 :]
    check(parsed(words), "torch")
    options = dict(w[2:].split("=", 1) for w in launcher if "=" in w)
    assert int(options["nnodes"]) == job["completions"] == job["parallelism"]
    gpus = container["resources"]["limits"]["nvidia.com/gpu"]
    assert int(options["nproc-per-node"]) == gpus
    # The first pod of the first job, by the name that JobSet gives it.
    name = document["metadata"]["name"]
    [part] = document["spec"]["replicatedJobs"]
    assert options["master-addr"] == f"{name}-{part['name']}-0-0.{name}"
    assert document["spec"]["network"]["enableDNSHostnames"]


def test_tpu_slice():
    _, job, container = jobset("train_tpu.yaml")
    assert container["command"][:3] == ["tini", "--", "keras-bridgetower"]
    check(parsed(container["command"][3:]), "jax")
    selector = job["template"]["spec"]["nodeSelector"]
    sides = selector["cloud.google.com/gke-tpu-topology"].split("x")
    chips = container["resources"]["limits"]["google.com/tpu"]
    assert int(sides[0]) * int(sides[1]) == chips * job["completions"]


@pytest.mark.parametrize("name", ["train_jobset.yaml", "train_tpu.yaml"])
def test_jobs_are_those_of_kubernetes(name):
    validate = pytest.importorskip("kubernetes_validate")
    _, job, _ = jobset(name)
    document = {"apiVersion": "batch/v1", "kind": "Job", "spec": job}
    document["metadata"] = {"name": "train"}
    validate.validate(json.loads(json.dumps(document)), "1.33", strict=True)


@pytest.mark.slow
def test_the_command_finds_no_device_before_processes_are_connected():
    """JAX refuses to connect processes once it has a device."""
    code = (
        "import jax, sys; from keras_bridgetower.apps.cli import frameworks\n"
        "frameworks.load(datasets=True, devices=False)\n"
        "from keras_bridgetower.training import train\n"
        "jax.distributed.initialize(sys.argv[1], 1, 0)\n"
    )
    address = f"127.0.0.1:{launch.free_port()}"
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    subprocess.run(
        [sys.executable, "-c", code, address], env=environment, check=True
    )
