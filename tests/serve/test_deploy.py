"""Test the files of `deploy/`: their references exist and agree."""

import json
import pathlib
import re
import tomllib

import pytest
import typer
from builders import FASTEST
from packaging.requirements import Requirement

pytest.importorskip("uvicorn", reason="the extra `serve`")

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.serve import admission
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.presets.table import PRESETS

yaml = pytest.importorskip("yaml", reason="comes with the extra `docs`")

pytestmark = FASTEST
ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
IMAGE = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")


def documents(name):
    found = yaml.safe_load_all((DEPLOY / name).read_text())
    return {one.get("kind"): one for one in found}


def instruction(word):
    return re.search(rf"^{word} ?(.+)$", IMAGE, re.MULTILINE)[1]


def parsed(words):
    """The values that a command of the command line takes from its words."""
    # The first process, which passes signals on to the next.
    assert words[:3] == ["tini", "--", "keras-bridgetower"]
    command, words = typer.main.get_command(main.application()), words[3:]
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    # Refuses options and values that the command does not have.
    return command.make_context(command.name, list(words)).params


ENTRY = json.loads(instruction("ENTRYPOINT"))
SERVICES = documents("compose.yaml")[None]["services"]
KUBERNETES = documents("kubernetes.yaml")
TEMPLATE = KUBERNETES["Deployment"]["spec"]["template"]
RAY = documents("kuberay.yaml")["RayService"]["spec"]


def test_the_image_installs_extras_that_exist():
    known = PROJECT["optional-dependencies"]
    assert {*instruction("ARG EXTRAS=").split(","), "ray"} <= set(known)
    [needed] = known["ray"]
    version = RAY["rayClusterConfig"]["rayVersion"]
    assert Requirement(needed).specifier.contains(version)


def test_the_image_asks_for_a_key(monkeypatch, capfd):
    words = ENTRY + json.loads(instruction("CMD"))
    values = parsed(words)
    assert values["host"] == "0.0.0.0"
    assert str(values["port"]) == instruction("EXPOSE")
    assert set(values["presets"]) <= set(PRESETS)
    monkeypatch.delenv(KEY, raising=False)
    assert main.main(words[3:]) == 2
    assert KEY in capfd.readouterr().err


def test_the_commands_of_compose():
    served = parsed(ENTRY + SERVICES["server"]["command"])
    index = SERVICES["index"]
    indexed = parsed(index["entrypoint"] + index["command"])
    # The same index of the same preset.
    assert served["store"] == indexed["store"] == "qdrant:http://qdrant:6333"
    assert indexed["preset"] in served["presets"]
    # Compose stops where the variable is not set.
    assert SERVICES["server"]["environment"][KEY].startswith(f"${{{KEY}:?")
    grace = SERVICES["server"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Limits().seconds


@pytest.mark.parametrize(
    "found",
    [documents("ray_serve.yaml")[None], yaml.safe_load(RAY["serveConfigV2"])],
    ids=["ray_serve.yaml", "kuberay.yaml"],
)
def test_configurations_of_clusters(found):
    pytest.importorskip("ray", reason="the extra `ray`")
    from ray.serve.schema import ServeDeploySchema

    from keras_bridgetower.apps.serve import deployments

    ServeDeploySchema(**found)
    [application] = found["applications"]
    module, _, function = application["import_path"].partition(":")
    assert (module, function) == (deployments.__name__, "build")
    assert deployments.build(application["args"]) is not None
    names = {"http", *Plan.from_values(**application["args"]).names()}
    assert {x["name"] for x in application["deployments"]} == names


def test_the_pods_of_kubernetes():
    pod = TEMPLATE["spec"]
    assert pod["securityContext"]["runAsUser"] == int(instruction("USER"))
    [container] = pod["containers"]
    variables = {variable["name"]: variable for variable in container["env"]}
    assert "secretKeyRef" in variables[KEY]["valueFrom"]
    values = parsed(ENTRY + container["args"])
    assert set(values["presets"]) <= set(PRESETS)
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        # Without a key.
        assert container[probe]["httpGet"]["path"] in admission.OPEN
    # Another path would end pods whose models are loaded again.
    assert container["livenessProbe"]["httpGet"]["path"] != admission.READY
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert pod["terminationGracePeriodSeconds"] > before + values["seconds"]


def test_the_network_policy_of_kubernetes():
    policy = KUBERNETES["NetworkPolicy"]["spec"]
    chosen = policy["podSelector"]["matchLabels"]
    assert chosen == TEMPLATE["metadata"]["labels"]
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    # The port of the pods, from pods with a label, and nothing else.
    [rule] = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]
    assert all("podSelector" in source for source in rule["from"])
    # Names are looked up, and presets are downloaded from the internet, but
    # no other pod or machine of a private network is asked.
    opened = {
        (port["port"], port["protocol"]): rule["to"]
        for rule in policy["egress"]
        for port in rule["ports"]
    }
    assert set(opened) == {(53, "UDP"), (53, "TCP"), (443, "TCP")}
    [block] = opened[443, "TCP"]
    inner = set(block["ipBlock"]["except"])
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} < inner
