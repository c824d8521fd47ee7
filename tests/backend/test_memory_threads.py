"""Loading in one thread does not affect other threads."""

import threading

import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import randomise

import keras_bridgetower as kbt
from keras_bridgetower.backend import uninitialized

pytestmark = LONG_ELSEWHERE


@pytest.fixture(scope="module")
def preset(tmp_path_factory):
    folder = tmp_path_factory.mktemp("threads") / "preset"
    randomise(backbone()).save_to_preset(folder)
    return folder


def load(preset):
    return kbt.BridgeTowerBackbone.from_preset(preset)


def in_threads(*functions):
    """Run each in a thread of its own; what they returned."""
    found = [None] * len(functions)

    def run(index, function):
        found[index] = function()

    threads = [
        threading.Thread(target=run, args=pair) for pair in enumerate(functions)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return found


def test_layers_built_during_a_load_are_initialized(preset):
    done = threading.Event()

    def load_on():
        while not done.is_set():
            load(preset)

    def build():
        load(preset)  # By now the other thread is loading, too.
        try:
            norms = [keras.layers.LayerNormalization() for _ in range(200)]
            for norm in norms:
                norm.build((None, 4))
            return [array(norm.gamma) for norm in norms]
        finally:
            done.set()

    _, gammas = in_threads(load_on, build)
    np.testing.assert_array_equal(gammas, np.ones((200, 4)))


def test_two_threads_load_at_once(preset):
    alone = load(preset)
    for model in in_threads(lambda: load(preset), lambda: load(preset)):
        for a, b in zip(alone.weights, model.weights, strict=True):
            np.testing.assert_array_equal(array(a), array(b), err_msg=a.path)
    fresh = keras.layers.Dense(2, kernel_initializer="ones")
    fresh.build((None, 3))
    np.testing.assert_array_equal(array(fresh.kernel), np.ones((3, 2)))


def test_initialization_after_an_error():
    with pytest.raises(ValueError, match="taps"):
        uninitialized.without_initialization(lambda: backbone(taps=(-99, -98)))
    fresh = keras.layers.LayerNormalization()
    fresh.build((None, 4))
    np.testing.assert_array_equal(array(fresh.gamma), np.ones(4))
