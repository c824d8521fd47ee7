"""A preset folder is read once, and no file outside it is opened."""

import json
import os
import pathlib
import shutil
import signal
import threading
import time

import keras
import keras_hub
import numpy as np
import pytest
from builders import ANSWERS
from builders import array
from builders import backbone
from builders import clip
from builders import one_layer_each
from builders import randomise
from builders import roberta
from builders import tokenizer
from builders import vqa

import keras_bridgetower as kbt
from keras_bridgetower.presets import folder as folders
from keras_bridgetower.presets import hub
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets import safe_files
from keras_bridgetower.presets.errors import PresetError

pytestmark = [
    pytest.mark.skipif(
        keras.config.backend() != "torch",
        reason="the same code with every backend, and this one traces nothing",
    ),
    pytest.mark.filterwarnings("ignore:The preset .* has no manifest"),
]
TINY = "bridgetower_tiny_easy_vqa"


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """A small preset of a task, with everything a folder may hold."""
    folder = tmp_path_factory.mktemp("presets") / "vqa"
    model = randomise(vqa(**one_layer_each()))
    model.backbone.extra = {"unread": np.ones(3, "float32")}
    model.save_to_preset(folder)
    return folder


@pytest.fixture
def copied(whole, tmp_path):
    return shutil.copytree(whole, tmp_path / "preset")


@pytest.fixture
def bare(copied):
    """A copy without a manifest."""
    (copied / manifest.MANIFEST).unlink()
    return copied


def edit(folder, name, change):
    path = folder / name
    values = json.loads(path.read_text())
    change(values)
    path.write_text(json.dumps(values))


def refused(folder, match, cls=kbt.BridgeTowerVQA):
    """Check that opening raises `PresetError`, and does not hang."""
    raised = []

    def load():
        try:
            cls.from_preset(folder)
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=load, daemon=True)
    thread.start()
    # Long enough for a busy machine.
    thread.join(100)
    assert not thread.is_alive(), "it hangs"
    assert raised, "it was accepted"
    with pytest.raises(PresetError, match=match):
        raise raised[0]


@pytest.mark.parametrize("values", [{}, {"image_size": 32}])
def test_preset_files_are_read_and_hashed_once(values, monkeypatch):
    calls = []

    def counted(owner, name):
        function = getattr(owner, name)

        def call(*args, **kwargs):
            calls.append((name, str(args[0])))
            return function(*args, **kwargs)

        monkeypatch.setattr(owner, name, call)

    counted(hub, "fetch")
    counted(manifest, "verify")
    counted(manifest, "sha256")
    counted(folders, "read_json")
    kbt.BridgeTowerVQA.from_preset(TINY, **values)
    names = [name for name, _ in calls]
    assert names.count("fetch") == names.count("verify") == 1
    folder = pathlib.Path(registry.resolve(TINY))
    listed = json.loads((folder / manifest.MANIFEST).read_text())["sha256"]
    summed = [path for name, path in calls if name == "sha256"]
    read = [path for name, path in calls if name == "read_json"]
    assert 0 < len(set(summed)) == len(summed) // 2 == len(listed)
    assert len(set(read)) == len(read) == 5


def test_preset_without_manifest_warns_once(bare, whole):
    with pytest.warns(UserWarning, match="has no manifest.json") as caught:
        model = kbt.BridgeTowerVQA.from_preset(bare)
    (said,) = [w for w in caught if "no manifest" in str(w.message)]
    assert said.filename == __file__
    sealed = kbt.BridgeTowerVQA.from_preset(whole)
    for a, b in zip(model.weights, sealed.weights, strict=True):
        np.testing.assert_array_equal(array(a), array(b))
    assert model.backbone.extra["unread"].tolist() == [1, 1, 1]


def test_unlisted_files_are_refused_by_name(copied):
    folder = copied
    (folder / ".gitattributes").touch()
    registry.resolve(folder)
    (folder / "assets" / "other\x1b[2J.json").write_text("{}")
    with pytest.raises(PresetError, match="is not in it") as error:
        registry.resolve(folder)
    assert "other\\x1b[2J.json" in str(error.value)
    assert "\x1b" not in str(error.value)


@pytest.mark.parametrize(
    "name", ["/etc/hostname", "../theirs", "a/../../b", ""]
)
def test_manifest_with_unsafe_names_is_rejected(name, copied, tmp_path):
    folder = copied
    (tmp_path / "theirs").write_text("secret")
    content = json.loads((folder / manifest.MANIFEST).read_text())
    sums = content["sha256"] | {name: "0"}
    (folder / manifest.MANIFEST).write_text(
        manifest._text(content["versions"], sums)
    )
    with pytest.raises(PresetError, match="no name of a file in it"):
        registry.resolve(folder)


NAMES = [
    "config.json",
    "task.json",
    "heads.json",
    "preprocessor.json",
    "tokenizer.json",
    "image_converter.json",
    "model.weights.h5",
    "task.weights.h5",
    "extra.safetensors",
    "assets/tokenizer/vocabulary.json",
    "assets/tokenizer/merges.txt",
    "manifest.json",
]


# What opens a file: a preprocessor's own lists hold its parts too.
READERS = {
    "tokenizer.json": kbt.BridgeTowerTokenizer,
    "image_converter.json": kbt.BridgeTowerImageConverter,
}


@pytest.mark.parametrize("name", NAMES)
def test_pipes_devices_and_links_are_rejected(name, bare, tmp_path):
    path, part = bare / name, READERS.get(name, kbt.BridgeTowerVQA)
    path.unlink(missing_ok=True)
    os.mkfifo(path)
    match = "unreadable" if name == "manifest.json" else "regular file"
    refused(bare, match, part)
    theirs = tmp_path / "theirs"
    theirs.write_text('{"secret": 1, "registered_name": "a"}')
    for target, match in (("/dev/zero", "regular file"), (theirs, "leaves it")):
        path.unlink()
        path.symlink_to(target)
        if name == "manifest.json":
            match = "unreadable"
        refused(bare, match, part)


def test_a_hub_cache_of_links_opens(whole, tmp_path):
    snapshot = tmp_path / "models--a--b" / "snapshots" / "main"
    shutil.copytree(whole, snapshot)
    blobs = tmp_path / "models--a--b" / "blobs"
    blobs.mkdir()
    for i, path in enumerate([p for p in snapshot.rglob("*") if p.is_file()]):
        path.rename(blobs / f"{i}")
        path.symlink_to(os.path.relpath(blobs / f"{i}", path.parent))
    assert kbt.BridgeTowerVQA.from_preset(snapshot).answers == ANSWERS


@pytest.mark.parametrize("name", NAMES[:-1])
def test_missing_files_are_named(name, bare):
    (bare / name).unlink()
    optional = ("task.json", "preprocessor.json", "extra.safetensors")
    if name in optional:
        assert kbt.BridgeTowerVQA.from_preset(bare).answers == ANSWERS
    elif name == "heads.json":
        with pytest.warns(UserWarning, match="holds no head"):
            kbt.BridgeTowerVQA.from_preset(bare)
    elif name in ("tokenizer.json", "image_converter.json"):
        with pytest.warns(UserWarning, match="takes features only"):
            kbt.BridgeTowerVQA.from_preset(bare)
    elif name == "config.json":
        with pytest.raises(ValueError, match="`preset` must be one of"):
            kbt.BridgeTowerVQA.from_preset(bare)
    else:
        refused(bare, "is missing")


def encoder(name, **values):
    return "config.json", lambda v: v["config"][name]["config"].update(values)


# Sizes that config.json and heads.json may name, of which the files of weights
# hold nothing.
SIZES = {
    "pictures": encoder("image_encoder", image_shape=[4096, 4096, 3]),
    "patches": encoder(
        "image_encoder", image_shape=[4096, 4096, 3], patch_size=4096
    ),
    "inner width of the image encoder": encoder(
        "image_encoder", intermediate_dim=1_000_000
    ),
    "inner width of the text encoder": encoder(
        "text_encoder", intermediate_dim=1_000_000
    ),
    "positions": encoder("text_encoder", max_sequence_length=100_000),
    "tokens": encoder("text_encoder", vocabulary_size=1_000_000),
    "inner width": (
        "config.json",
        lambda v: v["config"].update(intermediate_dim=1_000_000),
    ),
    # The first error is in `make` itself, after the large encoder.
    "an error too": (
        "config.json",
        lambda v: (
            v["config"].update(bridge="?"),
            encoder("image_encoder", patch_size=4096)[1](v),
            encoder("image_encoder", image_shape=[4096, 4096, 3])[1](v),
        ),
    ),
    "head": ("heads.json", lambda v: v["vqa"].update(head_hidden_scale=100)),
}


@pytest.mark.parametrize("name", SIZES)
def test_weights_that_no_file_holds_are_not_built(name, bare):
    file, change = SIZES[name]
    edit(bare, file, change)
    if name == "head":
        path = bare / "task.json"
        edit(bare, path, lambda v: v["config"].update(head_hidden_scale=100))
    start = time.process_time()
    refused(bare, "describes")
    assert time.process_time() - start < 5


@pytest.mark.parametrize("name", ["positions", "inner width", "pictures"])
def test_random_weights_are_bounded_by_the_file(name, bare):
    edit(bare, *SIZES[name])
    with pytest.raises(PresetError, match="describes"):
        kbt.BridgeTowerVQA.from_preset(bare, load_weights=False)


@pytest.mark.parametrize(
    "key, value",
    [
        ("answers", ""),
        ("answers", ANSWERS[::-1]),
        ("num_classes", len(ANSWERS) + 1),
        ("head_hidden_scale", 3),
    ],
)
def test_a_listed_head_that_does_not_fit_is_an_error(key, value, bare):
    edit(bare, "heads.json", lambda heads: heads["vqa"].update({key: value}))
    refused(bare, "heads.json")


def test_a_listed_head_is_new_only_where_the_caller_asks(bare):
    edit(bare, "heads.json", lambda heads: heads["vqa"].update(answers=""))
    # Heads of other tasks do not matter to this one.
    kbt.BridgeTowerEntailment.from_preset(bare, random_heads=True)
    with pytest.warns(UserWarning, match="head vqa.*with other values"):
        kbt.BridgeTowerVQA.from_preset(bare, answers=ANSWERS[1:])
    edit(bare, "heads.json", lambda heads: heads["vqa"].update(answers=None))
    copy = kbt.BridgeTowerVQA.from_preset(bare)
    assert copy.new_heads.still_random(["vqa"]) == []


@pytest.mark.parametrize(
    "content",
    [
        '{"a": ' + "[" * 100_000 + "]" * 100_000 + "}",
        "[1]",
        '{"a": NaN}',
        "\ud800",
        '{"a": ' + "9" * 10_000 + "}",
        "",
    ],
    ids=["deep", "list", "nan", "utf-8", "digits", "empty"],
)
@pytest.mark.parametrize("name", NAMES[1:6])
def test_invalid_json_is_rejected(name, content, bare):
    (bare / name).write_bytes(content.encode("utf-8", "surrogatepass"))
    refused(bare, name, READERS.get(name, kbt.BridgeTowerVQA))


def test_json_of_any_size_is_not_read(bare, monkeypatch):
    monkeypatch.setattr(safe_files, "LARGEST_JSON", 1000)
    refused(bare, "may have (at most )?1,000 bytes")


@pytest.mark.parametrize("file", ["/tmp/evil.json", "../evil.json", "a.json"])
@pytest.mark.parametrize("name", ["tokenizer.json", "preprocessor.json"])
def test_no_file_name_in_a_preset_leads_out(file, name, bare):
    def change(values):
        values["config"]["config_file"] = file
        if "tokenizer" in values["config"]:
            values["config"]["tokenizer"]["config"]["config_file"] = file

    edit(bare, name, change)
    part = READERS.get(name, kbt.BridgeTowerVQA)
    refused(bare, "`config_file` must be", part)


def test_vocabulary_outside_the_folder_is_rejected(bare, tmp_path):
    tokenizer().save_assets(tmp_path)
    theirs = str(tmp_path / "vocabulary.json")

    def change(values):
        values["config"]["vocabulary"] = theirs
        values["config"]["merges"] = []

    edit(bare, "tokenizer.json", change)
    refused(bare, "`vocabulary` must not", kbt.BridgeTowerTokenizer)
    edit(bare, "preprocessor.json", lambda v: change(v["config"]["tokenizer"]))
    refused(bare, "`vocabulary` must not")


@pytest.mark.parametrize("name", ["../a.weights.h5", "/tmp/a.weights.h5"])
def test_shards_outside_the_folder_are_rejected(name, bare):
    weights = bare / "model.weights.h5"
    shutil.copy(weights, bare.parent / "a.weights.h5")
    weights.rename(bare / "model_00000.weights.h5")
    (bare / "model.weights.json").write_text(
        json.dumps({"metadata": {}, "weight_map": {"/layers/vars": [name]}})
    )
    refused(bare, "must be plain")


FOREIGN = {
    "a function": {
        "module": "builtins",
        "class_name": "function",
        "config": "eval",
        "registered_name": "function",
    },
    "a lambda": {"class_name": "__lambda__", "config": {"value": "a"}},
    "a module": {
        "module": "os",
        "class_name": "system",
        "config": {},
        "registered_name": None,
    },
    "a layer of Keras": {
        "module": "keras.layers",
        "class_name": "Lambda",
        "config": {},
        "registered_name": None,
    },
    "a tokenizer": {
        "module": "keras_hub.tokenizers",
        "class_name": "BytePairTokenizer",
        "config": {"vocabulary": "/etc/hostname"},
        "registered_name": "keras_hub>BytePairTokenizer",
    },
}


@pytest.mark.parametrize("spec", FOREIGN.values(), ids=FOREIGN)
def test_unregistered_classes_are_rejected(spec, bare):
    def set_encoder(values):
        values["config"]["text_encoder"] = spec

    def set_value(values):
        values["config"]["dropout"] = spec

    def set_all(values):
        values.clear()
        values.update(spec)

    for name, change in (
        ("config.json", set_encoder),
        ("config.json", set_value),
        ("preprocessor.json", set_value),
        ("preprocessor.json", set_all),
        ("tokenizer.json", set_all),
        ("image_converter.json", set_all),
        ("heads.json", lambda values: values["vqa"].update(answers=spec)),
    ):
        before = (bare / name).read_text()
        edit(bare, name, change)
        refused(bare, name, READERS.get(name, kbt.BridgeTowerVQA))
        (bare / name).write_text(before)


@keras.saving.register_keras_serializable(package="a_users_own")
class OwnEncoder(keras_hub.models.RobertaBackbone):
    """Has the rule of its base class."""


@keras.saving.register_keras_serializable(package="a_users_own")
class OwnBackbone(kbt.BridgeTowerBackbone):
    pass


@keras.saving.register_keras_serializable(package="a_users_own")
class OwnBridge(kbt.BridgeLayer):
    def merge(self, x, y, mask=None):
        return x - y


def test_registered_classes_of_the_user_open(tmp_path):
    values = roberta(layers=1).get_config()
    model = OwnBackbone(
        clip(layers=2),
        OwnEncoder.from_config({**values, "num_layers": 2}),
        hidden_dim=16,
        num_heads=2,
        num_layers=2,
        bridge=OwnBridge,
    )
    model.save_to_preset(tmp_path / "own")
    copy = kbt.BridgeTowerBackbone.from_preset(tmp_path / "own")
    assert type(copy) is OwnBackbone
    assert type(copy.text_encoder) is OwnEncoder
    assert type(copy.fusion.text_bridges[-1]) is OwnBridge
    for a, b in zip(model.weights, copy.weights, strict=True):
        np.testing.assert_array_equal(array(a), array(b))


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("text_encoder", "num_layers", 100_000),
        ("image_encoder", "num_layers", 999),
        ("text_encoder", "hidden_dim", 65_536),
        ("text_encoder", "vocabulary_size", 9_999_999),
        ("text_encoder", "vocabulary_size", 10**300),
        (None, "hidden_dim", 99_999),
        (None, "num_layers", 100_000),
        ("image_encoder", "image_shape", [10**9, 10**9, 3]),
    ],
)
def test_absurd_sizes_are_rejected_quickly(part, key, value, bare):
    def change(values):
        config = values["config"]
        (config[part]["config"] if part else config)[key] = value

    edit(bare, "config.json", change)
    started = time.process_time()
    refused(bare, "config.json")
    assert time.process_time() - started < 5


def test_all_files_have_the_usual_permissions(whole):
    modes = {p.stat().st_mode for p in whole.rglob("*") if p.is_file()}
    assert len(modes) == 1


@pytest.mark.parametrize("size", [0, 5, 40])
def test_truncated_safetensors_are_rejected(size, bare):
    path = bare / "extra.safetensors"
    path.write_bytes(path.read_bytes()[:size])
    refused(bare, "extra.safetensors")


def test_saving_keeps_assignments_of_other_threads(tmp_path):
    """Saving asked Keras where it puts what, by a patch of `assign`."""
    models = [backbone(**one_layer_each()) for _ in range(2)]
    variable = keras.Variable(0.0)
    lost, done = [], threading.Event()

    def assign():
        count = 0.0
        while not done.is_set():
            count += 1
            variable.assign(count)
            if array(variable) != count:
                lost.append(count)

    def save(i):
        for k in range(2):
            models[i].save_to_preset(tmp_path / f"{i}-{k}")

    other = threading.Thread(target=assign)
    savers = [threading.Thread(target=save, args=(i,)) for i in range(2)]
    other.start()
    for thread in savers:
        thread.start()
    for thread in savers:
        thread.join()
    done.set()
    other.join()
    assert not lost
    saved = list(tmp_path.glob("*/weights_index.json"))
    assert len(saved) == 4 and len({p.read_bytes() for p in saved}) == 1


@pytest.mark.skipif(not hasattr(os, "fork"), reason="a system without fork")
@pytest.mark.filterwarnings("ignore:.*fork")
def test_a_forked_process_checks_large_files_too(whole, tmp_path, monkeypatch):
    """As the workers of a loader of data: threads are not forked."""
    monkeypatch.setattr(manifest, "LARGE", 1)
    manifest.verify(whole).finish()
    other = shutil.copytree(whole, tmp_path / "other")
    child = os.fork()
    if not child:
        try:
            manifest.verify(other).finish()
            os._exit(0)
        finally:
            os._exit(1)
    until = time.monotonic() + 100
    while True:
        done, status = os.waitpid(child, os.WNOHANG)
        if done or time.monotonic() > until:
            break
        time.sleep(0.05)
    if not done:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
    assert done and status == 0


def test_a_large_file_that_could_not_be_read_is_read_again(copied, monkeypatch):
    monkeypatch.setattr(manifest, "LARGE", 1)

    def fail(file):
        raise OSError("too many open files")

    with monkeypatch.context() as broken:
        broken.setattr(manifest, "sha256", fail)
        with pytest.raises(PresetError, match="cannot be read: too many"):
            manifest.verify(copied).finish()
    manifest.verify(copied).finish()


@pytest.mark.parametrize(
    ("name", "open_"),
    [
        (
            "assets/tokenizer/vocabulary.json",
            kbt.BridgeTowerTokenizer.from_preset,
        ),
        (
            "extra.safetensors",
            lambda folder: kbt.BridgeTowerBackbone.from_preset(folder, False),
        ),
    ],
)
def test_large_files_beside_the_weights_are_checked(
    name, open_, copied, monkeypatch
):
    monkeypatch.setattr(manifest, "LARGE", 1)
    folder = copied
    content = bytearray((folder / name).read_bytes())
    content[-1] ^= 1
    (folder / name).write_bytes(content)
    with pytest.raises(PresetError, match=f"{name} was changed"):
        open_(folder)


@pytest.mark.parametrize("key", ["bridge", "dtype", "name"])
def test_errors_do_not_reach_the_terminal(key, bare):
    """Escape codes of a file move the cursor, or change what was printed."""

    def change(values):
        values["config"][key] = "a/\x1b[2J\x1b[H\nBad"

    edit(bare, "config.json", change)
    with pytest.raises(PresetError) as raised:
        kbt.BridgeTowerBackbone.from_preset(bare)
    assert str(raised.value).isprintable()
