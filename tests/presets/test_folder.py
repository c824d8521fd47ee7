"""A preset folder is read once, and no file outside it is opened."""

import collections
import concurrent.futures
import json
import os
import pathlib
import re
import shutil
import time
import warnings

import builders
import copies
import faults_run
import keras
import keras_hub
import numpy as np
import pytest
from builders import ANSWERS

import keras_bridgetower as kbt
from keras_bridgetower.files import checksummed
from keras_bridgetower.files import parse_checksummed
from keras_bridgetower.presets import folder as folders
from keras_bridgetower.presets import hub
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.errors import ConversionError
from keras_bridgetower.presets.errors import PresetError

pytestmark = [
    builders.FASTEST,
    pytest.mark.filterwarnings("ignore:The preset .* has no manifest"),
]
TINY = "bridgetower_tiny_easy_vqa"
NAMES = [
    *("config.json", "task.json", "heads.json", "preprocessor.json"),
    *("tokenizer.json", "image_converter.json", "model.weights.h5"),
    *("task.weights.h5", "extra.safetensors"),
    *("assets/tokenizer/vocabulary.json", "assets/tokenizer/merges.txt"),
    "manifest.json",
]
# What opens a file: a preprocessor's own lists hold its parts too.
READERS = {
    "tokenizer.json": kbt.BridgeTowerTokenizer,
    "assets/tokenizer/vocabulary.json": kbt.BridgeTowerTokenizer,
    "assets/tokenizer/merges.txt": kbt.BridgeTowerTokenizer,
    "image_converter.json": kbt.BridgeTowerImageConverter,
}


def refused(folder, match, name=None):
    """Check that opening raises `PresetError`, and does not hang."""
    cls = READERS.get(name, kbt.BridgeTowerVQA)
    pool = concurrent.futures.ThreadPoolExecutor(1)
    # Long enough for a busy machine.
    error = pool.submit(cls.from_preset, folder).exception(timeout=100)
    assert isinstance(error, (PresetError, ConversionError)), error
    assert re.search(match, str(error)), error


def test_preset_files_are_read_and_hashed_once(monkeypatch):
    calls = {}

    def count(owner, name):
        function = getattr(owner, name)

        def call(*args, **kwargs):
            calls.setdefault(name, []).append(str(args[0]))
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    count(hub, "fetch")
    count(manifest, "verify")
    count(manifest, "sha256")
    count(folders, "read_json")
    kbt.BridgeTowerVQA.from_preset(TINY, image_size=32)
    assert len(calls["fetch"]) == len(calls["verify"]) == 1
    folder = pathlib.Path(registry.resolve(TINY))
    listed = json.loads((folder / manifest.MANIFEST).read_text())["sha256"]
    summed, read = calls["sha256"], calls["read_json"]
    assert 0 < len(set(summed)) == len(summed) // 2 == len(listed)
    assert len(set(read)) == len(read) == 4


def test_files_that_the_manifest_lacks_are_refused(copied):
    path = copied / manifest.MANIFEST
    content = parse_checksummed(path.read_text())
    for name in ("../theirs", None):
        sums = dict(content["sha256"])
        if name is None:
            del sums["assets/tokenizer/merges.txt"]
        else:
            sums[name] = "0"
        path.write_text(checksummed({**content, "sha256": sums}))
        refused(copied, "was changed" if name else "in its manifest")


@pytest.mark.parametrize("name", NAMES)
def test_pipes_devices_and_links_are_rejected(name, bare, tmp_path):
    path = bare / name
    theirs = tmp_path / "theirs"
    theirs.write_text('{"secret": 1, "registered_name": "a"}')
    # The conversion reads a config.json that is not that of a preset.
    odd = "" if name == "config.json" else "regular file"
    for target, match in (
        (None, odd),
        ("/dev/zero", odd),
        (theirs, "leaves it"),
    ):
        path.unlink(missing_ok=True)
        path.symlink_to(target) if target else os.mkfifo(path)
        refused(bare, match, name)


def test_a_hub_cache_of_links_opens(saved, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "main"
    shutil.copytree(saved[1], snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for i, path in enumerate([p for p in snapshot.rglob("*") if p.is_file()]):
        path.rename(blobs / f"{i}")
        path.symlink_to(os.path.relpath(blobs / f"{i}", path.parent))
    task = kbt.BridgeTowerVQA.from_preset(snapshot)
    assert task.backbone.extra["unread"].tolist() == [1, 1, 1]


# Files that a preset may lack, with what is warned of.
OPTIONAL = {
    **dict.fromkeys(("task.json", "preprocessor.json", "extra.safetensors")),
    "heads.json": "has no head",
    "tokenizer.json": "takes features only",
    "image_converter.json": "takes features only",
}


@pytest.mark.parametrize("name", NAMES[:-1])
def test_missing_files_are_named(name, bare):
    (bare / name).unlink()
    if name == "config.json":
        with pytest.raises(ValueError, match="`preset` must be one of"):
            kbt.BridgeTowerVQA.from_preset(bare)
    elif name not in OPTIONAL:
        refused(bare, "is missing")
    elif OPTIONAL[name] is None:
        assert kbt.BridgeTowerVQA.from_preset(bare).answers == ANSWERS
    else:
        with pytest.warns(UserWarning, match=OPTIONAL[name]):
            kbt.BridgeTowerVQA.from_preset(bare)


def sizes(part=None, **values):
    """Values of a part in config.json."""

    def change(file):
        config = file["config"]
        (config[part]["config"] if part else config).update(values)

    return change


def large_image(**values):
    return sizes("image_encoder", image_shape=[4096, 4096, 3], **values)


def an_error_too(file):
    # It is raised in `make` itself, after the large encoder.
    sizes(bridge="?")(file)
    large_image(patch_size=4096)(file)


# Sizes that config.json may name, of which the files of weights hold nothing.
SIZES = {
    "pictures": large_image(),
    "image": sizes("image_encoder", intermediate_dim=1_000_000),
    "positions": sizes("text_encoder", max_sequence_length=100_000),
    "tokens": sizes("text_encoder", vocabulary_size=1_000_000),
    "inner width": sizes(intermediate_dim=1_000_000),
    "an error too": an_error_too,
}
# Others are refused before anything is built.
ABSURD = {
    "layers": sizes("text_encoder", num_layers=100_000),
    "tokens, absurd": sizes("text_encoder", vocabulary_size=10**300),
    "width": sizes(hidden_dim=99_999),
    "pictures, absurd": sizes("image_encoder", image_shape=[10**9, 10**9, 3]),
}


@pytest.mark.parametrize("name", [*SIZES, *ABSURD, "head"])
def test_weights_that_no_file_holds_are_not_built(name, bare):
    match = "config.json" if name in ABSURD else "describes"
    if name == "head":
        copies.update(bare / "heads.json", "vqa", head_hidden_scale=100)
        copies.update(bare / "task.json", "config", head_hidden_scale=100)
    else:
        copies.edit(bare / "config.json", (SIZES | ABSURD)[name])
    start = time.process_time()
    refused(bare, match)
    if name in ("positions", "inner width", "pictures"):
        with pytest.raises(PresetError, match=match):
            kbt.BridgeTowerVQA.from_preset(bare, load_weights=False)
    assert time.process_time() - start < 5


def test_a_listed_head_is_new_only_where_the_caller_asks(saved, bare):
    copies.update(bare / "heads.json", "vqa", answers="")
    # Heads of other tasks do not matter to this one.
    kbt.BridgeTowerEntailment.from_preset(bare, random_heads=True)
    with pytest.warns(UserWarning, match="head `vqa`.*with other values"):
        copy = kbt.BridgeTowerVQA.from_preset(bare, answers=ANSWERS[1:])
    assert copy.answers == ANSWERS[1:]
    builders.assert_same_weights(copy.backbone, saved[0].backbone)
    copies.update(bare / "heads.json", "vqa", answers=None)
    copy = kbt.BridgeTowerVQA.from_preset(bare)
    assert copy.new_heads.still_random(["vqa"]) == []


def holding(text):
    return lambda path: path.write_text(text)


def setting(**values):
    """Set values of the configuration of an object and of its tokenizer."""

    def change(file):
        file["config"].update(values)
        if "tokenizer" in file["config"]:
            file["config"]["tokenizer"]["config"].update(values)

    return lambda path: copies.edit(path, change)


def listing(**values):
    """Set values of the listed head."""
    return lambda path: copies.update(path, "vqa", **values)


# A file, what is done to it, and words of the error.
DAMAGE = [
    *(
        ("heads.json", listing(**values), "heads.json")
        for values in (
            {"answers": ""},
            {"answers": ANSWERS[::-1]},
            {"num_classes": len(ANSWERS) + 1},
            {"head_hidden_scale": 3},
        )
    ),
    ("heads.json", holding("[1]"), "heads.json"),
    ("heads.json", holding('{"a": NaN}'), "NaN is not a number"),
    ("tokenizer.json", holding(f'{{"a": {"9" * 10_000}}}'), "tokenizer.json"),
    ("extra.safetensors", holding(""), "extra.safetensors"),
    *(
        (name, change, f"`{key}` must")
        for name in ("tokenizer.json", "preprocessor.json")
        for key, change in {
            "config_file": setting(config_file="../evil.json"),
            "vocabulary": setting(vocabulary="/etc/hostname", merges=[]),
        }.items()
    ),
]


@pytest.mark.parametrize("row", range(len(DAMAGE)))
def test_damaged_files_and_names_of_others_are_rejected(row, bare):
    name, change, match = DAMAGE[row]
    change(bare / name)
    refused(bare, match, name)


def test_shards_outside_the_folder_are_rejected(bare):
    weights = bare / "model.weights.h5"
    shutil.copy(weights, bare.parent / "a.weights.h5")
    weights.rename(bare / "model_00000.weights.h5")
    shards = {"metadata": {}, "weight_map": {"/vars": ["../a.weights.h5"]}}
    (bare / "model.weights.json").write_text(json.dumps(shards))
    refused(bare, "must be plain")


def spec(module, class_name, config, registered_name=None):
    names = {"module": module, "registered_name": registered_name}
    return {"class_name": class_name, "config": config, **names}


VOCABULARY = {"vocabulary": "/etc/hostname"}
FOREIGN = {
    "a function": spec("builtins", "function", "eval", "function"),
    "a module": spec("os", "system", {}),
    "a layer of Keras": spec("keras.layers", "Lambda", {}),
    "a tokenizer": spec(
        *("keras_hub.tokenizers", "BytePairTokenizer", VOCABULARY),
        "keras_hub>BytePairTokenizer",
    ),
}


@pytest.mark.parametrize("spec", FOREIGN.values(), ids=FOREIGN)
def test_unregistered_classes_are_rejected(spec, bare):
    plain = "must hold plain values"
    for name, match, change in (
        ("config.json", "", lambda v: v["config"].update(text_encoder=spec)),
        ("config.json", plain, lambda v: v["config"].update(dropout=spec)),
        ("preprocessor.json", plain, lambda v: v["config"].update(name=spec)),
        ("preprocessor.json", "", None),
        ("tokenizer.json", "", None),
        ("image_converter.json", "", None),
        ("heads.json", plain, lambda v: v["vqa"].update(answers=spec)),
    ):
        before = (bare / name).read_text()
        if change:
            copies.edit(bare / name, change)
        else:
            (bare / name).write_text(json.dumps(spec))
        refused(bare, f"{name}.*{match}", name)
        (bare / name).write_text(before)


own = keras.saving.register_keras_serializable(package="a_users_own")


@own
class OwnEncoder(keras_hub.models.RobertaBackbone):
    """Has the rule of its base class."""


@own
class OwnBackbone(kbt.BridgeTowerBackbone):
    pass


@own
class OwnBridge(kbt.BridgeLayer):
    def merge(self, x, y, mask=None):
        return x - y


def test_registered_classes_of_the_user_open(tmp_path):
    text = OwnEncoder.from_config(builders.roberta().get_config())
    values = dict(hidden_dim=16, num_heads=2, num_layers=2, bridge=OwnBridge)
    model = OwnBackbone(builders.clip(layers=2), text, **values)
    model.save_to_preset(tmp_path / "own")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "own")
    assert type(copy) is OwnBackbone
    assert type(copy.text_encoder) is OwnEncoder
    assert type(copy.fusion.text_bridges[-1]) is OwnBridge
    builders.assert_same_weights(model, copy)


@pytest.mark.parametrize("key", ["bridge", "name"])
def test_errors_do_not_reach_the_terminal(key, bare):
    """Escape codes of a file move the cursor, or change what was printed."""
    copies.edit(bare / "config.json", sizes(**{key: "a/\x1b[2J\x1b[H\nBad"}))
    with pytest.raises(PresetError) as raised:
        kbt.BridgeTowerBackbone.from_preset(bare)
    assert str(raised.value).isprintable()


BYTES = (faults_run.flip_a_bit, faults_run.cut)
CHANGES = (faults_run.remove, faults_run.make_huge)


def mutate(folder, rng):
    """Change one file; its name."""
    paths = sorted(p for p in folder.rglob("*") if p.is_file())
    path = paths[rng.integers(len(paths))]
    edits = map(faults_run.edit, CHANGES if path.suffix == ".json" else ())
    faults = (*BYTES, *edits)
    faults[rng.integers(len(faults))](path, rng)
    return path.relative_to(folder).as_posix()


@pytest.mark.parametrize(
    "count", [10, pytest.param(2000, marks=pytest.mark.slow)]
)
def test_mutants_raise_the_typed_error_or_give_the_same(count, saved, tmp_path):
    model, source = saved
    readers = READERS | {"preprocessor.json": kbt.BridgeTowerVQAPreprocessor}
    refused = 0
    for seed in range(count):
        rng = np.random.default_rng(seed)
        folder = shutil.copytree(source, tmp_path / f"{seed}")
        (folder / manifest.MANIFEST).unlink()
        name = mutate(folder, rng)
        started = time.process_time()
        try:
            # Of new heads, missing parts, and no manifest.
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                copy = readers.get(name, kbt.BridgeTowerVQA).from_preset(folder)
        except (PresetError, ConversionError) as error:
            refused += 1
            assert "\x1b" not in str(error), (seed, name)  # noqa: PT017
        except ValueError as error:
            # Before the folder counts as a preset at all.
            expected = ("`preset` must be one of", "`answers` must be given")
            assert str(error).startswith(expected), (seed, name)  # noqa: PT017
            refused += 1
        except Exception as error:
            raise AssertionError((seed, name)) from error
        else:
            if name not in readers:
                check_the_same(model, copy, (seed, name))
        assert time.process_time() - started < 20, (seed, name)
        shutil.rmtree(folder)
    assert refused > count / 4


def check_the_same(model, copy, where):
    """Weights that no file changed are those that were saved."""
    # Not by path or order: a mutant may name a layer anew, or freeze it.
    own, found = (
        collections.Counter(w.tobytes() for w in m.backbone.get_weights())
        for m in (model, copy)
    )
    assert where[1] == "model.weights.h5" or own == found, where
    assert all(np.isfinite(w).all() for w in copy.get_weights()), where
