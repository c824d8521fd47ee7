"""Damaged checkpoints: one kind of error, or exactly what they hold.

The seeds make every case repeatable; the whole thousand runs with -m slow.
"""

import functools
import itertools
import pickletools
import shutil

import archives
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


def flip_bits(path, rng):
    data = bytearray(path.read_bytes())
    # Half of them in the header, where they do most.
    end = len(data) if rng.integers(2) else min(len(data), 4096)
    for _ in range(rng.integers(1, 4)):
        data[rng.integers(end)] ^= 1 << rng.integers(8)
    path.write_bytes(data)


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
    kind = rng.integers(4)
    if kind == 0:
        state[f"{name}.renamed"] = value
    elif kind == 1:
        state[name] = value.reshape(-1)[: max(value.numel() // 2, 1)].clone()
    elif kind == 2:
        state[name], state["another.tensor"] = value, value.clone()
    write()


def change_opcodes(path, rng):
    """Opcodes of the pickle, whose checksum is right again."""

    def change(data):
        starts = [at for *_, at in pickletools.genops(data)] + [len(data)]
        steps = [data[a:b] for a, b in itertools.pairwise(starts)]
        for _ in range(rng.integers(1, 4)):
            i, j = rng.integers(len(steps), size=2)
            kind = rng.integers(4)
            if kind == 0:
                del steps[i]
            elif kind == 1:
                steps.insert(i, steps[j])
            elif kind == 2:
                steps[i], steps[j] = steps[j], steps[i]
            else:
                step = bytearray(steps[i])
                step[rng.integers(len(step))] = rng.integers(256)
                steps[i] = bytes(step)
        return b"".join(steps)

    archives.with_pickle(path, change)


ODD = (None, -1, 0, 10**12, 0.5, "64", [], {}, True, float("inf"), "gelu")


def edit_json(path, rng):
    def change(config):
        levels = [config, *(v for v in config.values() if type(v) is dict)]
        level = levels[rng.integers(len(levels))]
        key = sorted(level)[rng.integers(len(level))]
        if rng.integers(5) == 0:
            del level[key]
        else:
            level[key] = ODD[rng.integers(len(ODD))]

    copies.edit(path, change)


def mutate(source, target, seed):
    """A damaged copy; the path to open."""
    rng = np.random.default_rng(seed)
    if rng.integers(3) == 0:
        target.mkdir()
        path = target / "model.ckpt"
        shutil.copy(source / "official" / "model.ckpt", path)
        kinds = (flip_bits, faults_run.cut, change_tensor, change_opcodes)
        kinds[rng.integers(4)](path, rng)
        return path
    shutil.copytree(source / "theirs", target)
    name, how = (
        ("model.safetensors", change_tensor),
        ("config.json", edit_json),
    )[rng.integers(2)]
    (flip_bits, faults_run.cut, how)[rng.integers(3)](target / name, rng)
    return target


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


def link(path, where):
    """Put a link in place of a file that is moved elsewhere."""
    where.mkdir(exist_ok=True)
    path.rename(where / path.name)
    path.symlink_to(where / path.name)


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
    link(folder / name, tmp_path / "elsewhere")
    readers = [cache.open_checkpoint, cache.open_converted]
    if name in ("config.json", "vocab.json"):
        readers += [unimodal.text_encoder, unimodal.tokenizer]
    for read in readers:
        with pytest.raises(ConversionError, match=f"leave it.*{name}"):
            read(folder)


def test_links_to_the_blobs_of_a_hub_cache_are_read(sources, tmp_path):
    folder = tmp_path / "models--a--b/snapshots/main"
    shutil.copytree(sources / "theirs", folder)
    for path in list(folder.iterdir()):
        link(path, folder.parent.parent / "blobs")
    assert cache.open_checkpoint(folder).tensors.shapes


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
    "count", [32, pytest.param(1000, marks=pytest.mark.slow)]
)
def test_damaged_checkpoints(count, sources, tmp_path):
    folder = tmp_path / "cases"
    folder.mkdir()
    loaded = sum(check(sources, folder, seed) for seed in range(count))
    # Both outcomes must occur, or the cases test nothing.
    assert 0 < loaded < count / 2
