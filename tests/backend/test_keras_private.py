"""Private names of Keras are used for known versions only; faults of Keras."""

import pathlib
import re
import threading

import keras
import numpy as np
import pytest
from builders import ANSWERS
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import features
from builders import randomise
from builders import shallow
from builders import slow_on

import keras_bridgetower as kbt
from keras_bridgetower.backend.keras_private import is_known
from keras_bridgetower.backend.keras_private import variables

BACKEND = keras.config.backend()

# JAX compiles for most of its time, which no version changes.
LONG = pytest.mark.slow if BACKEND == "jax" else lambda test: test


KNOWN = ("3.15.1", "3.15.2rc1")
UNKNOWN = ("3.15", "3.16.0.dev2026112600", "4.0")


@FASTEST
@pytest.mark.parametrize("version", KNOWN + UNKNOWN)
def test_versions_whose_private_names_are_known(monkeypatch, version):
    monkeypatch.setattr(keras, "__version__", version)
    assert is_known() == (version in KNOWN)


@pytest.fixture
def unknown(monkeypatch):
    monkeypatch.setattr(keras, "__version__", "3.16.0rc1")


@LONG
@slow_on("tensorflow")
def test_unknown_keras_trains_saves_and_loads(unknown, tmp_path):
    task = kbt.BridgeTowerVQA(shallow(), answers=ANSWERS)
    task.save_to_preset(tmp_path / "made")
    task = kbt.BridgeTowerVQA.from_preset(tmp_path / "made", preprocessor=None)
    before = [array(w) for w in task.weights]
    x, y = features(task.backbone), np.eye(4, dtype="float32")[:3]
    task.compile(run_eagerly=BACKEND == "tensorflow")  # Traces nothing.
    task.fit(x, y, batch_size=3, verbose=0)
    trained = [array(w) for w in task.weights]
    assert any((a != b).any() for a, b in zip(before, trained, strict=True))
    task.save_to_preset(tmp_path / "saved")
    again = kbt.BridgeTowerVQA.from_preset(
        tmp_path / "saved", preprocessor=None
    )
    assert_same_weights(trained, again)


@pytest.mark.skipif(BACKEND == "torch", reason="uses no private names")
def test_unknown_keras_rejects_several_devices(unknown):
    with pytest.raises(RuntimeError, match="several devices.*3.16.0rc1"):
        kbt.distribute("data_parallel", devices=1)


def dense():
    layer = keras.layers.Dense(2, kernel_initializer="ones")
    layer.build((None, 3))
    return layer


class Table(keras.layers.Layer):
    """Keras cannot create its variable before the scope has ended."""

    def build(self, shape=None):
        self.table = keras.Variable(np.arange(3.0), trainable=False)


def test_weights_that_need_their_values(unknown, monkeypatch):
    layer = variables.without_initialization(dense)
    np.testing.assert_array_equal(array(layer.kernel), np.ones((3, 2)))
    monkeypatch.undo()
    layer = Table()
    variables.without_initialization(layer.build)
    np.testing.assert_array_equal(array(layer.table), np.arange(3))


@pytest.mark.skipif(BACKEND != "torch", reason="PyTorch's own names")
def test_parameter_names_on_pytorch():
    loaded, usual = variables.without_initialization(backbone), backbone()
    for name in ("image_encoder", "text_encoder", "fusion"):
        ours, theirs = (getattr(m, name) for m in (loaded, usual))
        assert set(ours.state_dict()) == set(theirs.state_dict())
    assert len(loaded.fusion.state_dict()) > 100
    assert set(loaded.state_dict()) == set(usual.state_dict())


def test_shapes_only_keeps_variables_of_outer_scopes():
    with keras.StatelessScope():
        waits = dense()
        with variables.shapes_only():
            empty = dense()
    np.testing.assert_array_equal(array(waits.kernel), np.ones((3, 2)))
    with keras.StatelessScope():
        pass
    assert empty.kernel.shape == (3, 2) and "value" not in repr(empty.kernel)


# Loading in one thread does not affect other threads.


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threads") / "preset"
    randomise(shallow()).save_to_preset(folder)
    return folder


def load(preset):
    return kbt.BridgeTowerBackbone.from_preset(preset)


@LONG_ELSEWHERE
def test_loads_in_two_threads_and_layers_built_meanwhile(preset):
    done = threading.Event()

    def load_on():
        while not done.is_set():
            load(preset)

    thread = threading.Thread(target=load_on)
    thread.start()
    try:
        # By now the other thread is loading, too.
        model = load(preset)
        kernels = [array(dense().kernel) for _ in range(200)]
    finally:
        done.set()
        thread.join()
    np.testing.assert_array_equal(kernels, np.ones((200, 3, 2)))
    assert_same_weights(load(preset), model)


@LONG_ELSEWHERE
def test_initialization_after_an_error():
    with pytest.raises(ValueError, match="taps"):
        variables.without_initialization(lambda: backbone(taps=(-99, -98)))
    np.testing.assert_array_equal(array(dense().kernel), np.ones((3, 2)))


PAGE = pathlib.Path(__file__).parents[2] / "docs" / "upstream.md"
SCRIPT = re.compile(r"^```py\n# (.*?)\n(.*?)^```$", re.S | re.M)


def faults():
    """The scripts of `docs/upstream.md` for this backend, by their heading."""
    shared = ""
    for section in PAGE.read_text().split("\n### ")[1:]:
        scripts = SCRIPT.findall(section)
        for number, (backend, code) in enumerate(scripts):
            if backend == "every backend":
                shared = code
            elif backend == f"KERAS_BACKEND={BACKEND}":
                name = section.splitlines()[0]
                yield pytest.param(shared + code, id=f"{name}-{number}")


@pytest.mark.parametrize("script", faults())
def test_a_fault_is_still_there(script):
    """Once Keras has repaired it, remove what the page names."""
    exec(script, {"__name__": "fault"})
