"""Weight files that are cut, edited or not finite, on every backend."""

import json
import shutil

import h5py
import numpy as np
import pytest
from builders import LONG_ELSEWHERE
from builders import array
from builders import one_layer_each
from builders import randomise
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import weights_file
from keras_bridgetower.presets.errors import PresetError

pytestmark = [
    LONG_ELSEWHERE,
    pytest.mark.filterwarnings("ignore:The preset .* has no manifest"),
]


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("presets") / "vqa"
    model = randomise(vqa(**one_layer_each()))
    model.save_to_preset(folder)
    return model, folder


@pytest.fixture
def folder(saved, tmp_path):
    folder = tmp_path / "preset"
    shutil.copytree(saved[1], folder)
    return folder


def without_seal(folder):
    (folder / manifest.MANIFEST).unlink(missing_ok=True)


@pytest.mark.parametrize("seal", [without_seal, manifest.write])
@pytest.mark.parametrize(
    "name", [weights_file.WEIGHTS, weights_file.TASK_WEIGHTS]
)
def test_truncated_weight_files_are_rejected(name, seal, folder):
    path = folder / name
    whole = path.read_bytes()
    for size in (0, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        seal(folder)
        with pytest.raises(PresetError, match=name):
            kbt.BridgeTowerVQA.from_preset(folder)


@pytest.mark.parametrize("seal", [without_seal, manifest.write])
@pytest.mark.parametrize(
    ("name", "value"),
    [(weights_file.WEIGHTS, np.nan), (weights_file.TASK_WEIGHTS, -np.inf)],
)
def test_weights_are_finite(name, value, seal, folder):
    names = []
    with h5py.File(folder / name, "r+") as file:
        file.visit(names.append)
        arrays = [n for n in names if isinstance(file[n], h5py.Dataset)]
        array_ = file[arrays[-1]]
        array_[(0,) * array_.ndim] = value
    seal(folder)
    with pytest.raises(PresetError, match=f"finite.*{name}"):
        kbt.BridgeTowerVQA.from_preset(folder)


# NumPy says it of JAX' cast, before the error does.
@pytest.mark.filterwarnings("ignore:overflow encountered in cast")
def test_a_cast_may_not_overflow(folder):
    with h5py.File(folder / weights_file.WEIGHTS, "r+") as file:
        file["layers/cross_modal_encoder/vars/0"][0, 0] = 1e6
    for seal in (manifest.write, without_seal):
        seal(folder)
        kbt.BridgeTowerBackbone.from_preset(folder)
        with pytest.raises(PresetError, match="finite"):
            kbt.BridgeTowerBackbone.from_preset(folder, dtype="float16")


def test_large_numbers_are_finite(folder):
    """Their squares are not, as a quick look finds."""
    with h5py.File(folder / weights_file.WEIGHTS, "r+") as file:
        file["layers/cross_modal_encoder/vars/0"][0, 0] = 3e38
    manifest.write(folder)
    model = kbt.BridgeTowerBackbone.from_preset(folder)
    assert array(model.fusion.type_embedding)[0, 0] == np.float32(3e38)


def test_index_is_ignored_without_manifest(saved, folder):
    path = folder / weights_file.INDEX
    index = json.loads(path.read_text())
    a, b = "fusion/text_pooler/kernel", "fusion/image_pooler/kernel"
    index[a], index[b] = index[b], index[a]
    path.write_text(json.dumps(index))
    without_seal(folder)
    model = kbt.BridgeTowerVQA.from_preset(folder)
    for own, loaded in zip(saved[0].weights, model.weights, strict=True):
        np.testing.assert_array_equal(array(own), array(loaded))


@pytest.mark.parametrize(
    ("field", "value"),
    [(0, 10**12), (0, -8), (0, 1.5), (2, "<f8"), (1, [2, 8]), (0, None)],
)
def test_index_that_contradicts_the_file_is_rejected(field, value, folder):
    path = folder / weights_file.INDEX
    index = json.loads(path.read_text())
    index["fusion/text_pooler/kernel"][field] = value
    path.write_text(json.dumps(index))
    manifest.write(folder)
    with pytest.raises(PresetError, match="the place of every variable"):
        kbt.BridgeTowerVQA.from_preset(folder)
    index["fusion/text_pooler/kernel"] = index["fusion/image_pooler/kernel"]
    path.write_text(json.dumps(index))
    manifest.write(folder)
    with pytest.raises(PresetError, match="the place of every variable"):
        kbt.BridgeTowerVQA.from_preset(folder)


# Keras would go on with random weights.
@pytest.mark.filterwarnings("ignore:Skipping nested container")
def test_unusual_hdf5_arrays_are_rejected(folder, tmp_path):
    without_seal(folder)
    path = folder / weights_file.WEIGHTS
    whole = path.read_bytes()
    place = "layers/cross_modal_encoder/vars/0"

    def links(file):
        del file[place]
        file[place] = h5py.ExternalLink(str(tmp_path / "a.h5"), "a")

    def chunks(file):
        values = file[place][()]
        del file[place]
        file.create_dataset(place, data=values, compression="gzip")

    def elsewhere(file):
        shape = file[place].shape
        del file[place]
        made = [(str(tmp_path / "a.bin"), 0, h5py.h5f.UNLIMITED)]
        file.create_dataset(place, shape, "<f4", external=made)

    def more(file):
        file["layers/cross_modal_encoder/other/vars/0"] = np.zeros(3)

    def fewer(file):
        del file[place]

    for change in (links, chunks, elsewhere, more, fewer):
        path.write_bytes(whole)
        with h5py.File(path, "r+") as file:
            change(file)
        with pytest.raises(PresetError, match="model.weights.h5"):
            kbt.BridgeTowerBackbone.from_preset(folder)


def test_presets_in_several_files(saved, folder, tmp_path):
    saved[0].save_to_preset(tmp_path / "shards", max_shard_size=3e-5)
    assert len(list((tmp_path / "shards").glob("model_*.weights.h5"))) > 1
    for _ in range(2):
        model = kbt.BridgeTowerVQA.from_preset(tmp_path / "shards")
        for own, loaded in zip(saved[0].weights, model.weights, strict=True):
            np.testing.assert_array_equal(array(own), array(loaded))
        (tmp_path / "shards" / manifest.MANIFEST).unlink(missing_ok=True)
