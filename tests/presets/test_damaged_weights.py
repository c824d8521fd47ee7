"""Weight files that are cut, edited or not finite, on every backend."""

import copies
import h5py
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets.errors import PresetError
from keras_bridgetower.presets.weights_file import INDEX
from keras_bridgetower.presets.weights_file import TASK_WEIGHTS
from keras_bridgetower.presets.weights_file import WEIGHTS

pytestmark = [
    LONG_ELSEWHERE,
    pytest.mark.filterwarnings("ignore:The preset .* has no manifest"),
]
PLACE = "layers/cross_modal_encoder/vars/0"
POOLERS = "fusion/text_pooler/kernel", "fusion/image_pooler/kernel"


def without_seal(folder):
    (folder / manifest.MANIFEST).unlink(missing_ok=True)


def refused(folder, match, cls=kbt.BridgeTowerVQA, **values):
    with pytest.raises(PresetError, match=match):
        cls.from_preset(folder, **values)


@pytest.mark.parametrize("seal", [without_seal, manifest.write])
@pytest.mark.parametrize("name", [WEIGHTS, TASK_WEIGHTS])
def test_truncated_weight_files_are_rejected(name, seal, copied):
    path = copied / name
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        seal(copied)
        refused(copied, name)


@pytest.mark.parametrize("seal", [without_seal, manifest.write])
@pytest.mark.parametrize(
    ("name", "value"), [(WEIGHTS, np.nan), (TASK_WEIGHTS, -np.inf)]
)
def test_weights_are_finite(name, value, seal, copied):
    names = []
    with h5py.File(copied / name, "r+") as file:
        file.visit(names.append)
        arrays = [n for n in names if isinstance(file[n], h5py.Dataset)]
        last = file[arrays[-1]]
        last[(0,) * last.ndim] = value
    seal(copied)
    refused(copied, f"finite.*{name}")


# NumPy says it of JAX' cast, before the error does.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_cast_may_not_overflow(copied):
    with h5py.File(copied / WEIGHTS, "r+") as file:
        file[PLACE][0, 0] = 1e6
    for seal in (manifest.write, without_seal):
        seal(copied)
        kbt.BridgeTowerBackbone.from_preset(copied)
        refused(copied, "finite", kbt.BridgeTowerBackbone, dtype="float16")


def test_large_numbers_are_finite(copied):
    """Their squares are not, as a quick look finds."""
    with h5py.File(copied / WEIGHTS, "r+") as file:
        file[PLACE][0, 0] = 3e38
    manifest.write(copied)
    model = kbt.BridgeTowerBackbone.from_preset(copied)
    assert array(model.fusion.type_embedding)[0, 0] == np.float32(3e38)


def test_index_is_ignored_without_manifest(saved, bare):
    def swap(index):
        one, other = POOLERS
        index[one], index[other] = index[other], index[one]

    copies.edit(bare / INDEX, swap)
    assert_same_weights(saved[0], kbt.BridgeTowerVQA.from_preset(bare))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        *((0, 10**12), (0, -8), (0, 1.5), (2, "<f8"), (1, [2, 8]), (0, None)),
        # The place of another variable.
        (slice(3), None),
    ],
)
def test_index_that_contradicts_the_file_is_rejected(field, value, copied):
    def change(index):
        other = index[POOLERS[1]] if field == slice(3) else value
        index[POOLERS[0]][field] = other

    copies.edit(copied / INDEX, change)
    manifest.write(copied)
    refused(copied, "the place of every variable")


def replace(file, **kwargs):
    """Put another array, of the same shape, in place of one."""
    values = file[PLACE][()]
    del file[PLACE]
    data = None if "external" in kwargs else values
    file.create_dataset(PLACE, values.shape, "<f4", data, **kwargs)


def link(file):
    del file[PLACE]
    file[PLACE] = h5py.ExternalLink("/tmp/a.h5", "a")


UNUSUAL = {
    "a link": link,
    "chunks": lambda file: replace(file, compression="gzip"),
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
    for _ in range(2):
        assert_same_weights(saved[0], kbt.BridgeTowerVQA.from_preset(folder))
        without_seal(folder)
