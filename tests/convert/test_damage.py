"""Damaged checkpoints: one kind of error, or exactly what they hold.

The seeds make every case repeatable; the whole thousand runs with -m slow.
"""

import functools
import shutil

import checkpoints
import copies
import faults_run
import numpy as np
import official
import pytest
import safetensors.torch
import torch
from builders import LONG_ELSEWHERE
from builders import array

from keras_bridgetower.convert import cache
from keras_bridgetower.convert import unimodal
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.convert.tensors import open_tensors
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    """A folder of transformers and a file of the authors, both small."""
    folder = tmp_path_factory.mktemp("sources")
    checkpoints.theirs().save_pretrained(folder / "theirs")
    (folder / "official").mkdir()
    official.save(folder / "official" / "model.ckpt", "vqa")
    return folder


def change_tensor(path, rng):
    """Rename, re-shape, drop or add a tensor."""
    if path.suffix == ".ckpt":
        file = torch.load(path, weights_only=True)
        state, write = file["state_dict"], lambda: torch.save(file, path)
    else:
        state = safetensors.torch.load_file(path)
        write = functools.partial(safetensors.torch.save_file, state, path)
    name = sorted(state)[rng.integers(len(state))]
    value = state.pop(name)
    half = value.reshape(-1)[: max(value.numel() // 2, 1)]
    changes = (
        {f"{name}.renamed": value},
        {name: half.clone()},
        {name: value, "another.tensor": value.clone()},
        {},
    )
    state.update(changes[rng.integers(4)])
    write()


BYTES = (faults_run.flip_a_bit, faults_run.cut)
JSON = (faults_run.edit(f) for f in (faults_run.remove, faults_run.make_huge))
# What is damaged, and by what.
FAULTS = {
    "official/model.ckpt": (*BYTES, change_tensor),
    "theirs/model.safetensors": (*BYTES, change_tensor),
    "theirs/config.json": (*BYTES, *JSON),
}


def mutate(source, target, seed):
    """A damaged copy; the path to open."""
    rng = np.random.default_rng(seed)
    file = [*FAULTS][seed % len(FAULTS)]
    folder, name = file.split("/")
    shutil.copytree(source / folder, target)
    faults = FAULTS[file]
    faults[rng.integers(len(faults))](target / name, rng)
    return target / name if folder == "official" else target


def held(path):
    """The tensors that a file well-formedly holds, read independently."""
    if path.is_file():
        state = torch.load(path, weights_only=True)["state_dict"]
        return {k: v.numpy() for k, v in state.items()}
    state = copies.tensors(path)
    return {k.removeprefix("bridgetower."): v.numpy() for k, v in state.items()}


def check(source, folder, seed):
    """One case: True if it loads, and then what it holds."""
    target = folder / str(seed)
    path = mutate(source, target, seed)
    before = sorted(p for p in folder.rglob("*"))
    try:
        checkpoint = cache.open_checkpoint(path)
        backbone, heads = checkpoint.build()
    except ConversionError:
        loaded = False
    else:
        loaded = True
        variables = variables_by_path(
            backbone, heads, encoder=backbone.image_encoder
        )
        tensors = held(path)
        assert set(checkpoint.tensors.shapes) == set(tensors)
        for rule in checkpoint.rules:
            shapes = [tuple(variables[p].shape) for p in rule.variables]
            values = rule.layout.load([tensors[k] for k in rule.keys], shapes)
            for name, value in zip(rule.variables, values, strict=True):
                np.testing.assert_array_equal(array(variables[name]), value)
    assert sorted(p for p in folder.rglob("*")) == before
    shutil.rmtree(target)
    return loaded


@pytest.mark.parametrize(
    "name", ["config.json", "model.safetensors", "merges.txt", "vocab.json"]
)
def test_links_out_of_a_folder_are_rejected(
    name, sources, tmp_path, monkeypatch
):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    folder = tmp_path / "theirs"
    shutil.copytree(sources / "theirs", folder)
    (folder / name).touch()
    (folder / name).rename(tmp_path / name)
    (folder / name).symlink_to(tmp_path / name)
    readers = [cache.open_checkpoint, cache.open_converted]
    if name in ("config.json", "vocab.json"):
        readers += [unimodal.text_encoder, unimodal.tokenizer]
    for read in readers:
        with pytest.raises(ConversionError, match=f"leave it.*{name}"):
            read(folder)


def test_only_the_checkpoint_itself_may_be_a_link(sources, tmp_path):
    path = tmp_path / "model.ckpt"
    path.symlink_to(sources / "official/model.ckpt")
    assert cache.open_checkpoint(path).heads
    (tmp_path / "merges.txt").symlink_to("/etc/hostname")
    with pytest.raises(ConversionError, match="leave it.*merges.txt"):
        cache.open_checkpoint(path)


def test_a_tensor_named_twice_is_rejected(tmp_path):
    path = tmp_path / "model.safetensors"
    place = '"shape": [2], "data_offsets": [0, 8]'
    one, two = (f'"a": {{"dtype": "{t}", {place}}}' for t in ("F32", "I32"))
    header = f"{{{one}, {two}}}".encode()
    path.write_bytes(len(header).to_bytes(8, "little") + header + bytes(8))
    with pytest.raises(ConversionError, match="the key 'a' occurs twice"):
        open_tensors(path)


@pytest.mark.filterwarnings("ignore:The text encoder has one dropout rate")
@pytest.mark.parametrize(
    "count", [18, pytest.param(1000, marks=pytest.mark.slow)]
)
def test_damaged_checkpoints(count, sources, tmp_path):
    folder = tmp_path / "cases"
    folder.mkdir()
    loaded = sum(check(sources, folder, seed) for seed in range(count))
    # Both outcomes must occur, or the cases test nothing.
    assert 0 < loaded < count / 2
