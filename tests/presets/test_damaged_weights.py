"""Weight files that are damaged, in parts or in low precision."""

import h5py
import keras
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import randomise
from builders import shallow
from keras_bridgetower_drawings.training import low_precision

import keras_bridgetower as kbt
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.folder import PresetFolder
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


@pytest.mark.parametrize("name", [WEIGHTS, TASK_WEIGHTS])
def test_truncated_weight_files_are_rejected(name, bare):
    path = bare / name
    whole = path.read_bytes()
    for size in (0, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        refused(bare, name)


def test_a_changed_weight_file_is_named(copied):
    path = copied / WEIGHTS
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    refused(copied, f"{WEIGHTS} was changed", kbt.BridgeTowerBackbone)


@pytest.mark.parametrize(
    ("name", "value"), [(WEIGHTS, np.nan), (TASK_WEIGHTS, -np.inf)]
)
def test_weights_are_finite(name, value, bare):
    names = []
    with h5py.File(bare / name, "r+") as file:
        file.visit(names.append)
        arrays = [n for n in names if isinstance(file[n], h5py.Dataset)]
        last = file[arrays[-1]]
        last[(0,) * last.ndim] = value
    refused(bare, f"{name}.*finite")


# NumPy says it of JAX' cast, before the error does.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_cast_may_not_overflow(bare):
    with h5py.File(bare / WEIGHTS, "r+") as file:
        file[PLACE][0, 0] = 1e6
    kbt.BridgeTowerBackbone.from_preset(bare)
    refused(bare, "finite", kbt.BridgeTowerBackbone, dtype="float16")


def replace(file, written=False, **kwargs):
    """Put another array, of the same shape, in place of one."""
    values = file[PLACE][()]
    del file[PLACE]
    data = values if written else None
    file.create_dataset(PLACE, values.shape, "<f4", data, **kwargs)


def link(file):
    del file[PLACE]
    file[PLACE] = h5py.ExternalLink("/tmp/a.h5", "a")


UNUSUAL = {
    "a link": link,
    "chunks": lambda file: replace(file, True, compression="gzip"),
    "nothing written": replace,
    "elsewhere": lambda file: replace(
        file, external=[("/tmp/a.bin", 0, h5py.h5f.UNLIMITED)]
    ),
    "one more": lambda file: file.create_dataset(
        "layers/cross_modal_encoder/other/vars/0", data=np.zeros(3)
    ),
    "one less": lambda file: file.pop(PLACE),
}


# Keras would go on with random weights.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
@pytest.mark.parametrize("kind", UNUSUAL)
def test_unusual_hdf5_arrays_are_rejected(kind, bare):
    with h5py.File(bare / WEIGHTS, "r+") as file:
        UNUSUAL[kind](file)
    refused(bare, WEIGHTS, kbt.BridgeTowerBackbone)


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
    copy = kbt.BridgeTowerVQA.from_preset(folder)
    assert len(copy.weights) == len(task.weights)
    for new, old in zip(copy.weights, task.weights, strict=True):
        expected = array(old)
        assert array(new).dtype == expected.dtype
        if expected.dtype == np.float32:
            expected = expected.astype("float16").astype("float32")
        np.testing.assert_array_equal(array(new), expected, old.path)


@pytest.mark.parametrize(
    ("bits", "scale", "size"), [(8, 1e-4, 1), (10, 1, 2), (8, 1e4, 2)]
)
def test_loaded_weights_are_near_those_in_fewer_bits(
    bits, scale, size, tmp_path
):
    task = randomise(shallow())
    table = task.text_encoder.get_layer("embeddings").token_embedding.embeddings
    rng = np.random.default_rng(0)
    # From the largest to numbers that are lost.
    wide = rng.normal(size=table.shape) * 2.0 ** -np.arange(table.shape[1])
    wide[0] = 0
    table.assign(wide * scale)
    task.save_to_preset(tmp_path / "preset")
    low_precision.store(tmp_path / "preset", bits)
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "preset")
    for new, old in zip(copy.weights, task.weights, strict=True):
        assert new.dtype == old.dtype and new.trainable == old.trainable
        if old.dtype == "float32":
            old = array(old)
            near = np.abs(old) / {8: 32, 10: 128}[bits]
            # Small numbers are lost beside the largest.
            near = np.maximum(near, np.abs(old).max() / 1024)
            assert (np.abs(array(new) - old) <= near).all()
    path = tmp_path / "preset" / WEIGHTS
    with h5py.File(path) as file:
        stored = [file[name] for name in array_types(path)]
        sizes = {item.shape: item.id.get_storage_size() for item in stored}
    # Large numbers are in half precision.
    assert sizes[table.shape] == wide.size * size


def test_a_weight_beyond_half_precision_is_refused(tmp_path):
    task = shallow()
    task.weights[0].assign(array(task.weights[0]) + 1e5)
    task.save_to_preset(tmp_path / "large")
    with pytest.raises(ValueError, match="within ±65504.*float32"):
        low_precision.store(tmp_path / "large", 16)
    # The folder stays as it was.
    PresetFolder(tmp_path / "large").finish_check()
