"""Weight files that are damaged, in parts or in low precision."""

import os

import h5py
import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import assert_same_weights
from keras_bridgetower_drawings.training import low_precision

import keras_bridgetower as kbt
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.weights_file import TASK_WEIGHTS
from keras_bridgetower.presets.weights_file import WEIGHTS
from keras_bridgetower.presets.weights_file import array_types

pytestmark = [
    LONG_ELSEWHERE,
    pytest.mark.filterwarnings("ignore:The preset .* has no manifest"),
]
PLACE = "layers/cross_modal_encoder/vars/0"


def refused(folder, match, cls=kbt.BridgeTowerVQA, **values):
    with pytest.raises(PresetError, match=match):
        cls.from_preset(folder, **values)


def cut_at(share):
    """Return a function that leaves a share of a file's bytes."""
    return lambda path: os.truncate(path, int(share * path.stat().st_size))


def edited(change):
    """Return a function that changes the open file of a path."""

    def edit(path):
        with h5py.File(path, "r+") as file:
            change(file)

    return edit


def holding(value):
    """Return a function that sets one number in the last array of a file."""

    def change(file):
        names = []
        file.visit(names.append)
        arrays = [n for n in names if isinstance(file[n], h5py.Dataset)]
        last = file[arrays[-1]]
        last[(0,) * last.ndim] = value

    return edited(change)


def replace(written=False, **kwargs):
    """Put another array, of the same shape, in place of one."""

    def change(file):
        values = file.pop(PLACE)[()]
        data = values if written else None
        file.create_dataset(PLACE, values.shape, "<f4", data, **kwargs)

    return edited(change)


def link(file):
    file.pop(PLACE)
    file[PLACE] = h5py.ExternalLink("/tmp/a.h5", "a")


def one_more(file):
    other = PLACE.replace("vars", "other/vars")
    file.create_dataset(other, data=np.zeros(3))


ELSEWHERE = "/tmp/a.bin", 0, h5py.h5f.UNLIMITED
# The file, what is done to it, and what the error tells besides its name.
DAMAGE = {
    "empty": (WEIGHTS, cut_at(0), ""),
    "cut": (TASK_WEIGHTS, cut_at(0.5), ""),
    "cut at its end": (WEIGHTS, cut_at(0.999), ""),
    "nan": (WEIGHTS, holding(np.nan), ".*finite"),
    "inf": (TASK_WEIGHTS, holding(-np.inf), ".*finite"),
    "a link": (WEIGHTS, edited(link), ""),
    "chunks": (WEIGHTS, replace(True, compression="gzip"), ""),
    "nothing written": (WEIGHTS, replace(), ""),
    "elsewhere": (WEIGHTS, replace(external=[ELSEWHERE]), ""),
    "one more": (WEIGHTS, edited(one_more), ""),
    "one less": (WEIGHTS, edited(lambda file: file.pop(PLACE)), ""),
}


# Keras would go on with random weights.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("kind", DAMAGE)
def test_damaged_and_unusual_weights_are_rejected(kind, bare):
    name, change, told = DAMAGE[kind]
    change(bare / name)
    # A preset's task has both files, and its backbone one.
    backbone = name == WEIGHTS and "cut" not in kind
    cls = kbt.BridgeTowerBackbone if backbone else kbt.BridgeTowerVQA
    refused(bare, f"{name}{told}", cls)


def test_a_changed_weight_file_is_named(copied):
    path = copied / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(copied, f"{WEIGHTS} was changed", kbt.BridgeTowerBackbone)


# NumPy says it of JAX' cast, before the error does.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_cast_may_not_overflow(bare):
    with h5py.File(bare / WEIGHTS, "r+") as file:
        file[PLACE][0, 0] = 1e6
    kbt.BridgeTowerBackbone.from_preset(bare)
    refused(bare, "finite", kbt.BridgeTowerBackbone, dtype="float16")


def test_presets_in_several_files(saved, tmp_path):
    folder = tmp_path / "shards"
    saved[0].save_to_preset(folder, max_shard_size=3e-5)
    assert len(list(folder.glob("model_*.weights.h5"))) > 1
    assert_same_weights(saved[0], kbt.BridgeTowerVQA.from_preset(folder))


def test_loading_draws_no_random_numbers(saved, monkeypatch):
    def refuse(*args, **kwargs):
        raise AssertionError("random numbers were drawn for a loaded weight")

    for name in ("VarianceScaling", "RandomNormal", "TruncatedNormal"):
        cls = getattr(keras.initializers, name)
        monkeypatch.setattr(cls, "__call__", refuse)
    preset = saved[1]
    kbt.BridgeTowerVQA.from_preset(preset)
    kbt.BridgeTowerBackbone.from_preset(preset, image_size=48)
    with pytest.raises(ValueError, match="random numbers"):
        kbt.BridgeTowerVQA.from_preset(preset, answers=["yes", "no"])


def test_loaded_weights_equal_stored_half_precision(saved, copied):
    task, folder = saved[0], copied
    low_precision.store(folder, 16)
    for file in (WEIGHTS, TASK_WEIGHTS):
        types = array_types(folder / file).values()
        # Position ids stay integers.
        assert {t.name for t in types if t.kind == "f"} == {"float16"}
    expected = [
        w.astype("float16").astype("float32") if w.dtype == "float32" else w
        for w in task.get_weights()
    ]
    found = kbt.BridgeTowerVQA.from_preset(folder).get_weights()
    assert_same_weights(found, expected)
