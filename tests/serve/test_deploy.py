"""Test the files of `deploy/`: their references exist and agree."""

import json
import pathlib
import re
import shlex
import subprocess
import sys
import tomllib

import pytest
import typer
from builders import FASTEST
from packaging.requirements import Requirement

pytest.importorskip("uvicorn", reason="the extra `serve`")

from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.cli import serve as command
from keras_bridgetower.apps.serve import admission
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.presets.table import PRESETS

yaml = pytest.importorskip("yaml", reason="comes with the extra `docs`")

pytestmark = FASTEST
ROOT = pathlib.Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
CACHE = "/home/server/.cache"


def documents(name):
    return list(yaml.safe_load_all((DEPLOY / name).read_text()))


def instructions():
    """The instructions of the Dockerfile, as pairs of a word and the rest."""
    text = (DEPLOY / "Dockerfile").read_text().replace("\\\n", " ")
    lines = [x for x in text.splitlines() if x and not x.startswith("#")]
    return [tuple(line.split(maxsplit=1)) for line in lines]


def instruction(word):
    [found] = [rest for name, rest in instructions() if name == word]
    return found


def parsed(words):
    """The values that a command of the command line takes from its words."""
    # The first process, which passes signals on to the next.
    init, end, program, *words = words
    assert (init, end) == ("tini", "--")
    assert program in PROJECT["scripts"]
    command = typer.main.get_command(main.application())
    while hasattr(command, "commands"):
        command, words = command.commands[words[0]], words[1:]
    # Refuses options and values that the command does not have.
    return command.make_context(command.name, list(words)).params


ENTRY = json.loads(instruction("ENTRYPOINT"))
USER = int(instruction("USER"))
[COMPOSE] = documents("compose.yaml")
KUBERNETES = {found["kind"]: found for found in documents("kubernetes.yaml")}
POD = KUBERNETES["Deployment"]["spec"]["template"]["spec"]
RAY = {found["kind"]: found for found in documents("kuberay.yaml")}
CLUSTER = RAY["RayService"]["spec"]["rayClusterConfig"]


def check_secret(variables):
    names = {variable["name"]: variable for variable in variables}
    secret = names[KEY]["valueFrom"]["secretKeyRef"]
    assert secret == {"name": "keras-bridgetower", "key": "key"}


def check_user(context):
    assert context["runAsNonRoot"]
    assert {context["runAsUser"], context["fsGroup"]} == {USER}


def test_the_image_installs_extras_that_exist():
    arguments = dict(
        rest.split("=") for word, rest in instructions() if word == "ARG"
    )
    extras = set(arguments["EXTRAS"].split(","))
    assert extras | {"ray"} <= set(PROJECT["optional-dependencies"])
    # Those of the other files that are built from it.
    for name in ("Dockerfile", "kuberay.yaml"):
        lists = re.findall(r"EXTRAS=([\w,]+)", (DEPLOY / name).read_text())
        assert extras | {"ray"} in [set(one.split(",")) for one in lists]


def test_the_image_copies_what_its_build_needs():
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for word, rest in instructions():
        if word == "COPY":
            for source in rest.split()[:-1]:
                assert (ROOT / source).exists()
                assert f"!{source.split('/')[0]}" in ignored


def test_the_image_asks_for_a_key(monkeypatch, capfd):
    words = ENTRY + json.loads(instruction("CMD"))
    values = parsed(words)
    assert values["host"] == "0.0.0.0"
    assert str(values["port"]) == instruction("EXPOSE")
    assert set(values["presets"]) <= set(PRESETS)
    monkeypatch.setitem(command.ENGINES, command.Engine.uvicorn, lambda *_: 0)
    monkeypatch.delenv(KEY, raising=False)
    assert main.main(words[3:]) == 2
    assert KEY in capfd.readouterr().err


def test_the_user_of_the_image_is_a_number_and_owns_the_cache():
    assert USER > 0
    runs = [rest for word, rest in instructions() if word == "RUN"]
    [added] = [shlex.split(run) for run in runs if run.startswith("useradd")]
    assert added[added.index("--uid") + 1] == str(USER)
    words = [word for word, _ in instructions()]
    # Made by that user: a volume takes its owner from the folder.
    after = instructions()[words.index("USER") :]
    assert after[1:3] == [("WORKDIR", "/home/server"), ("RUN", "mkdir .cache")]
    assert f"KERAS_HOME={CACHE}/" in instruction("ENV")


def test_health_check_distinguishes_ready_from_stopping(server, monkeypatch):
    _, command = instruction("HEALTHCHECK").split("CMD")
    program, *words = json.loads(command)
    assert program == "python"
    port = instruction("EXPOSE")
    words = [x.replace(f"http://127.0.0.1:{port}", server.url) for x in words]
    assert server.url in words[-1] and admission.READY in words[-1]

    for draining, code in ((False, 0), (True, 1)):
        monkeypatch.setattr(server.admission, "draining", draining)
        ran = subprocess.run([sys.executable, *words], capture_output=True)
        assert ran.returncode == code


def test_the_commands_of_compose():
    services = COMPOSE["services"]
    served = parsed(ENTRY + services["server"]["command"])
    index = services["index"]
    indexed = parsed(index["entrypoint"] + index["command"])
    # The same index of the same preset, in a service that is there.
    assert served["store"] == indexed["store"] == "qdrant:http://qdrant:6333"
    assert indexed["preset"] in served["presets"]
    assert f"{indexed['source']}:ro" in index["volumes"][0]
    # Compose stops where the variable is not set.
    assert services["server"]["environment"][KEY].startswith(f"${{{KEY}:?")
    _, _, port = services["server"]["ports"][0].split(":")
    assert port == instruction("EXPOSE")


def test_compose_services_wait_for_health_checks():
    services = COMPOSE["services"]
    for service in services.values():
        for name, how in service.get("depends_on", {}).items():
            if how["condition"] == "service_healthy":
                assert "test" in services[name]["healthcheck"]
    assert services["server"]["depends_on"].keys() == {"qdrant", "index"}
    grace = services["server"]["stop_grace_period"]
    assert int(grace.removesuffix("s")) > Limits().seconds


def test_written_folders_are_mounted():
    for name in ("index", "server"):
        service = COMPOSE["services"][name]
        assert service["read_only"] and service["tmpfs"] == ["/tmp"]
        mounted = [x.rsplit(":", 1) for x in service["volumes"]]
        assert ["models", CACHE] in mounted
    assert set(COMPOSE["volumes"]) == {"models", "vectors"}
    [container] = POD["containers"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    mounts = {x["mountPath"]: x["name"] for x in container["volumeMounts"]}
    assert set(mounts) == {CACHE, "/tmp"}
    assert {x["name"] for x in POD["volumes"]} == set(mounts.values())


def test_the_pods_of_kubernetes():
    [container] = POD["containers"]
    values = parsed(ENTRY + container["args"])
    assert set(values["presets"]) <= set(PRESETS)
    check_user(POD["securityContext"])
    check_secret(container["env"])
    [port] = container["ports"]
    assert str(port["containerPort"]) == instruction("EXPOSE")
    for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
        asked = container[probe]["httpGet"]
        assert asked["port"] == port["name"]
        # Without a key.
        assert asked["path"] in admission.OPEN
    # Another path would end pods whose models are loaded again.
    assert container["livenessProbe"]["httpGet"]["path"] != admission.READY
    before = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    assert POD["terminationGracePeriodSeconds"] > before + values["seconds"]


def test_the_objects_of_kubernetes_choose_the_pods():
    deployment = KUBERNETES["Deployment"]["spec"]
    labels = deployment["template"]["metadata"]["labels"]
    budget = KUBERNETES["PodDisruptionBudget"]["spec"]
    assert deployment["selector"]["matchLabels"] == labels
    assert KUBERNETES["Service"]["spec"]["selector"] == labels
    assert budget["selector"]["matchLabels"] == labels
    # Else no machine could ever be emptied.
    assert budget["minAvailable"] < deployment["replicas"]


def test_the_network_policy_of_kubernetes():
    labels = KUBERNETES["Deployment"]["spec"]["template"]["metadata"]["labels"]
    policy = KUBERNETES["NetworkPolicy"]["spec"]
    assert policy["podSelector"]["matchLabels"] == labels
    assert set(policy["policyTypes"]) == {"Ingress", "Egress"}
    # The port of the pods, from pods with a label, and nothing else.
    [rule] = policy["ingress"]
    assert [port["port"] for port in rule["ports"]] == ["http"]
    assert all("podSelector" in source for source in rule["from"])
    # Names are looked up, and presets are downloaded from the internet, but
    # no other pod or machine of a private network is asked.
    opened = {}
    for rule in policy["egress"]:
        for port in rule["ports"]:
            opened[port["port"], port["protocol"]] = rule["to"]
    assert set(opened) == {(53, "UDP"), (53, "TCP"), (443, "TCP")}
    [block] = opened[443, "TCP"]
    inner = set(block["ipBlock"]["except"])
    assert {"10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16"} < inner


def test_the_network_policy_of_kuberay():
    # The pods of Ray reach each other, the operator also reaches the port by
    # which it deploys, and clients the routes alone.
    policy = RAY["NetworkPolicy"]["spec"]
    own, operator, clients = policy["ingress"]
    ours = policy["podSelector"]
    for group in (CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]):
        labels = group["template"]["metadata"]["labels"]
        assert labels == ours["matchLabels"]
    assert own == {"from": [{"podSelector": ours}]}
    assert [port["port"] for port in operator["ports"]] == [8265, 8000]
    assert [port["port"] for port in clients["ports"]] == [8000]
    assert all("podSelector" in source for source in clients["from"])


def test_the_pods_of_kuberay():
    [group] = CLUSTER["workerGroupSpecs"]
    pods = [x["template"]["spec"] for x in (group, CLUSTER["headGroupSpec"])]
    for pod in pods:
        [container] = pod["containers"]
        check_user(pod["securityContext"])
        check_secret(container["env"])
    # KubeRay's own probe needs a program that the image lacks.
    asked = pods[0]["containers"][0]["readinessProbe"]["httpGet"]
    assert asked == {"path": "/-/healthz", "port": 8000}
    assert pods[0]["terminationGracePeriodSeconds"] > Limits().seconds
    # Without it `maxReplicas` means nothing.
    assert CLUSTER["enableInTreeAutoscaling"]
    [needed] = PROJECT["optional-dependencies"]["ray"]
    assert Requirement(needed).specifier.contains(CLUSTER["rayVersion"])
