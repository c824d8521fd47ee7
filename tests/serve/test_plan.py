"""Test plans, the options of the command, and workers that cannot start."""

import functools
import signal
import socket

import pytest
from builders import FASTEST
from served import FUSED
from served import MATCHING

from keras_bridgetower import startup
from keras_bridgetower.apps.cli import main
from keras_bridgetower.apps.serve import workers
from keras_bridgetower.apps.serve.plan import KEY
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import Plan
from keras_bridgetower.apps.serve.service import COUNTS

pytestmark = FASTEST


def test_a_plan_from_a_file():
    names = [FUSED, f"/models/{MATCHING}/"]
    plan = Plan.from_values(names, {"queue": 3}, allowed_hosts=["a.b"])
    assert (plan.names(), plan.allowed_hosts) == ([FUSED, MATCHING], ["a.b"])
    assert plan.limits == Limits(queue=3)
    for make, name, value in (
        (Plan, "presets", ()),
        (Plan, "presets", (FUSED, f"/models/{FUSED}")),
        (Limits, "queue", 0),
    ):
        with pytest.raises(ValueError, match=f"`{name}`"):
            make(**{name: value})


def test_index_of_an_unserved_preset_is_rejected(index, photos):
    with pytest.raises(ValueError, match=f"Serve '{MATCHING}' too"):
        Plan((FUSED,), store=str(photos.parent / "index")).searched()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([FUSED, "--seconds", "-1"], "`seconds`"),
        ([FUSED, "--allowed-host", "http://a/"], "`allowed_hosts`"),
        ([FUSED, "--store", "no/index"], "`store`"),
        ([FUSED, "--host", "0.0.0.0"], "need an API key"),
        ([FUSED, "--host", "::"], "`--without-key`"),
    ],
)
def test_command_rejects_wrong_options(capfd, monkeypatch, words, message):
    pytest.importorskip("uvicorn", reason="the extra `serve`")
    monkeypatch.delenv(KEY, raising=False)
    assert main.main(["serve", *words]) != 0
    assert message in capfd.readouterr().err


@pytest.mark.parametrize(
    ("key", "words", "hosts"),
    [
        (None, ["--host", "::1"], ()),
        (None, ["--allowed-host", "a.b"], ("a.b", "127.0.0.1")),
        (None, ["--host", "here.lan", "--without-key"], ("here.lan",)),
        ("key", ["--host", "0.0.0.0", "--allowed-host", "a.b"], ("a.b",)),
    ],
)
def test_hosts_of_the_command(monkeypatch, key, words, hosts):
    plans = []
    monkeypatch.setattr(workers, "run", lambda *a: plans.append(a[0]))
    monkeypatch.delenv(KEY, raising=False)
    if key is not None:
        monkeypatch.setenv(KEY, key)
    assert main.main(["serve", FUSED, *words]) == 0
    assert plans[0].allowed_hosts == hosts


def test_a_preset_that_cannot_be_loaded_ends_the_server(monkeypatch):
    pytest.importorskip("uvicorn", reason="the extra `serve`")
    from uvicorn.supervisors.multiprocess import SIGNALS

    with socket.create_server(("127.0.0.1", 0)) as probe:
        port = probe.getsockname()[1]
    for name in (COUNTS, startup.SERVER):
        monkeypatch.setenv(name, "1")
    load = functools.partial(int, "no preset")
    before = {number: signal.getsignal(number) for number in SIGNALS}
    try:
        with pytest.raises(ValueError, match="invalid literal .* 'no preset'"):
            workers.run(Plan((FUSED,)), "127.0.0.1", port, print, load)
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    # The port is free again.
    socket.create_server(("127.0.0.1", port)).close()
