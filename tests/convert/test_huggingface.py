"""Folders of transformers: the same numbers, and the way back."""

import contextlib
import json
import pathlib
import shutil
import warnings

import checkpoints
import numpy as np
import peer
import pytest
import safetensors.torch
import torch
import transformers
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import backbone
from builders import clip
from builders import difference
from builders import long_but

import keras_bridgetower as kbt
from keras_bridgetower import files
from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with three heads, and the models it came from."""
    path = tmp_path_factory.mktemp("theirs") / "model"
    models = checkpoints.with_all_heads(path)
    return path, models


def changed(folder, target, change):
    """A copy of a folder whose tensors `change` edits in place."""
    shutil.copytree(folder, target)
    state = state_of(target)
    change(state)
    safetensors.torch.save_file(state, target / "model.safetensors")
    return target


def state_of(folder):
    return safetensors.torch.load_file(folder / "model.safetensors")


def edited(source, target, level=None, **values):
    """A copy of a folder with other values in its configuration."""
    shutil.copytree(source, target)
    config = json.loads((target / "config.json").read_text())
    (config[level] if level else config).update(values)
    (target / "config.json").write_text(json.dumps(config))
    return target


def test_all_heads_and_back(folder, tmp_path):
    path, models = folder
    preset = registry.resolve(path)
    parts = checkpoints.preset_parts(preset)
    expected = checkpoints.run_theirs(models)
    got = checkpoints.run_ours(parts.backbone, parts.heads)
    found = checkpoints.differences(got, expected)
    assert max(found.values()) <= 1e-5, found

    back = tmp_path / "back"
    export.write(parts, back)
    before, after = state_of(path), state_of(back)
    assert set(before) == set(after)
    key = "bridgetower.text_model.embeddings.{}_embeddings.weight"
    folded = [key.format("position"), key.format("token_type")]
    for name, tensor in before.items():
        if name not in folded:
            assert torch.equal(tensor, after[name]), name
    sums = [state[folded[0]] + state[folded[1]] for state in (before, after)]
    assert torch.equal(*sums)

    again = checkpoints.preset_parts(registry.resolve(back))
    found = checkpoints.differences(
        checkpoints.run_ours(again.backbone, again.heads), got
    )
    assert max(found.values()) <= 1e-6, found


@FASTEST
def test_images_too_narrow_for_transformers(tmp_path):
    narrow = backbone(image_encoder=clip(layers=2, heads=1))
    with pytest.raises(ConversionError, match="image width=16, below 64"):
        narrow.export_to_transformers(tmp_path / "back")
    # So many heads would theirs have.
    with pytest.raises(ValueError, match="num_heads=0"):
        transformers.BridgeTowerModel(
            transformers.BridgeTowerConfig(vision_config={"hidden_size": 16})
        )


@pytest.mark.parametrize("link", peer.LINKS)
@pytest.mark.parametrize("shared", [True, False])
def test_links_and_projections(link, shared, tmp_path):
    model = checkpoints.theirs(link=link, shared_projections=shared)
    model.save_pretrained(tmp_path / "model")
    checkpoint = cache.open_checkpoint(tmp_path / "model")
    backbone, heads = checkpoint.build()
    found = checkpoints.differences(
        checkpoints.run_ours(backbone, heads),
        checkpoints.run_theirs({"itm": model}),
    )
    assert max(found.values()) <= 1e-5, found

    backbone.export_to_transformers(tmp_path / "back")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back, report = transformers.BridgeTowerModel.from_pretrained(
            tmp_path / "back", output_loading_info=True
        )
    assert not any(report.values()), report
    _, inputs = peer.inputs(checkpoints.SIZE)
    with torch.no_grad():
        a = model.bridgetower(**inputs).pooler_output
        b = back.eval()(**inputs).pooler_output
    assert float((a - b).abs().max()) <= 1e-6


@pytest.mark.parametrize("form", ["sharded", "pickled", "pickled shards"])
def test_forms_of_weight_files(form, folder, tmp_path):
    path, models = folder
    target = tmp_path / "model"
    if form == "sharded":
        models["itm"].save_pretrained(target, max_shard_size="1MB")
        assert len(list(target.glob("*.safetensors"))) > 1
    else:
        target.mkdir()
        shutil.copy(path / "config.json", target)
        state = models["itm"].state_dict()
        names = list(state)
        halves = [names] if form == "pickled" else [names[:99], names[99:]]
        files = ["pytorch_model.bin", "pytorch_model-2.bin"][: len(halves)]
        for file, half in zip(files, halves, strict=True):
            torch.save({k: state[k] for k in half}, target / file)
        if len(files) > 1:
            where = {
                k: file
                for file, half in zip(files, halves, strict=True)
                for k in half
            }
            (target / files[0]).rename(target / "pytorch_model-1.bin")
            where = {
                k: f.replace("model.bin", "model-1.bin")
                for k, f in where.items()
            }
            index = target / "pytorch_model.bin.index.json"
            index.write_text(json.dumps({"weight_map": where}))
    tensors = cache.open_checkpoint(target).tensors
    for name, tensor in models["itm"].state_dict().items():
        short = name.removeprefix("bridgetower.")
        np.testing.assert_array_equal(tensors.read(short), tensor.numpy())


def test_half_precision_files(folder, tmp_path):
    path, models = folder
    model = models["itm"]
    target = tmp_path / "model"
    target.mkdir()
    shutil.copy(path / "config.json", target)
    state = {k: v.to(torch.bfloat16) for k, v in model.state_dict().items()}
    safetensors.torch.save_file(state, target / "model.safetensors")
    backbone, _ = cache.open_checkpoint(target).build()
    expected = state["bridgetower.cross_modal_text_pooler.dense.weight"]
    np.testing.assert_array_equal(
        backbone.fusion.text_pooler.kernel, expected.float().numpy().T
    )


@pytest.mark.filterwarnings("ignore:The preset .* has no manifest")
def test_second_load_reads_no_foreign_file(folder, tmp_path, monkeypatch):
    path = tmp_path / "model"
    shutil.copytree(folder[0], path)
    # Sums of files as young as these would be made anew.
    monkeypatch.setattr(cache, "CLOCK_TICK", -1)
    first = registry.resolve(path)
    sha256 = files.sha256

    def refuse(*args):
        raise AssertionError("a foreign file was read again")

    def refuse_foreign(file):
        return refuse() if path in pathlib.Path(file).parents else sha256(file)

    monkeypatch.setattr(cache, "open_checkpoint", refuse)
    for module in (files, manifest):
        monkeypatch.setattr(module, "sha256", refuse_foreign)
    assert registry.resolve(path) == first


@FASTEST
def test_changed_file_is_converted_anew(folder, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(folder[0], path)
    first = registry.resolve(path)
    state = state_of(path)
    state["itm_score.fc.bias"] += 1
    safetensors.torch.save_file(state, path / "model.safetensors")
    assert registry.resolve(path) != first


def test_bfloat16_loads_directly(folder):
    backbone = kbt.BridgeTowerBackbone.from_preset(folder[0], dtype="bfloat16")
    assert {w.dtype for w in backbone.trainable_weights} == {"bfloat16"}


@FASTEST
@pytest.mark.parametrize("side", long_but([32, 96], 96))
def test_other_image_size(side, folder):
    path, models = folder
    backbone = kbt.BridgeTowerBackbone.from_preset(path, image_size=side)
    features, inputs = peer.inputs(checkpoints.SIZE)
    images = np.random.default_rng(0).normal(size=(2, side, side, 3))
    features["images"] = images.astype("float32")
    inputs["pixel_values"] = torch.tensor(
        features["images"].transpose(0, 3, 1, 2)
    )
    with torch.no_grad():
        expected = models["itm"].bridgetower(
            **inputs, interpolate_pos_encoding=True
        )
    got = backbone(features, training=False)["pooled"]
    np.testing.assert_allclose(
        np.asarray(checkpoints.array(got)), expected.pooler_output, atol=2e-5
    )


@FASTEST
def test_the_authors_large_fine_tuning_size(tmp_path):
    """From 294 to 574 pixels in patches of 14, as they fine-tuned it."""
    size = peer.SMALL | dict(layers=2, fused=1, side=294, patch=14)
    theirs = peer.peer(size)
    theirs.save_pretrained(tmp_path / "model")
    backbone = kbt.BridgeTowerBackbone.from_preset(
        tmp_path / "model", image_size=574
    )
    features, inputs = peer.inputs(size | {"side": 574}, batch=1)
    with torch.no_grad():
        expected = theirs.bridgetower(**inputs, interpolate_pos_encoding=True)
    got = backbone(features, training=False)
    assert got["image"].shape[1] == 41**2 + 1
    assert difference(got["image"], expected.image_features) <= 2e-5
    assert difference(got["pooled"], expected.pooler_output) <= 1e-5


@FASTEST
def test_cross_modal_layers_follow_the_text_configuration(tmp_path):
    model = peer.peer(peer.SMALL | {"heads": 2})
    model.save_pretrained(tmp_path / "model")
    # What stands at the top is read by nothing in transformers.
    path = edited(
        tmp_path / "model",
        tmp_path / "edited",
        num_attention_heads=4,
        intermediate_size=7,
        layer_norm_eps=0.5,
    )
    rates = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.3}
    path = edited(path, tmp_path / "final", "text_config", **rates)
    theirs = transformers.BridgeTowerModel.from_pretrained(path).eval()
    features, inputs = peer.inputs(peer.SMALL)
    with torch.no_grad():
        expected = theirs(**inputs).pooler_output
    with pytest.warns(UserWarning, match="used in the fusion alone"):
        backbone = kbt.BridgeTowerBackbone.from_preset(path)
    got = backbone(features, training=False)["pooled"]
    assert difference(got, expected) <= 1e-5
    fusion = backbone.fusion
    assert (fusion.num_heads, fusion.dropout) == (2, 0.25)
    assert fusion.attention_dropout == 0.3
    again = kbt.BridgeTowerBackbone.from_config(backbone.get_config())
    assert again.fusion.attention_dropout == 0.3
    backbone.export_to_transformers(tmp_path / "exported")
    written = json.loads((tmp_path / "exported/config.json").read_text())
    assert written["text_config"] | rates == written["text_config"]


def test_tied_decoder(tmp_path):
    model = checkpoints.theirs("mlm")
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "model")
    _, heads = cache.open_checkpoint(tmp_path / "model").build()
    table = model.bridgetower.text_model.embeddings.word_embeddings.weight
    np.testing.assert_array_equal(
        checkpoints.array(heads["mlm"].decoder.kernel),
        table.detach().numpy().T,
    )


@pytest.mark.parametrize(
    "level, values, found",
    [
        (None, {"model_type": "clip"}, "model_type='clip'"),
        (None, {"share_link_tower_layers": True}, "share_link_tower_layers"),
        (None, {"link_tower_type": "gate"}, "link_tower_type"),
        (None, {"link_tower_type": "scaled_add"}, "link_tower_type"),
        (None, {"num_hidden_layers": 10**9}, "num_hidden_layers: 1000000000"),
        (None, {"hidden_size": "64"}, "hidden_size='64'"),
        ("text_config", {"vocab_size": 10**12}, "vocab_size: 1000000000000"),
        ("text_config", {"num_attention_heads": 7}, "text_heads=7"),
        ("text_config", {"layer_norm_eps": 1e-12}, "layer_norm_eps=1e-12"),
        ("text_config", {"hidden_act": "relu"}, "hidden_act='relu'"),
        ("text_config", {"hidden_dropout_prob": 7.0}, "hidden_dropout_prob=7"),
        ("vision_config", {"remove_last_layer": True}, "vision num_hidden"),
        ("vision_config", {"image_size": 10**6}, "vision image_size"),
        ("vision_config", {"hidden_size": None}, "hidden_size=None"),
    ],
)
def test_bad_configurations(level, values, found, folder, tmp_path):
    path = edited(folder[0], tmp_path / "model", level, **values)
    with pytest.raises(ConversionError) as error:
        registry.resolve(path)
    assert found in str(error.value)
    assert not (tmp_path / "home" / "keras_bridgetower").exists() or not list(
        (tmp_path / "home" / "keras_bridgetower" / "presets").glob("*/")
    )


def test_unequal_depths_are_refused(folder, tmp_path):
    path = edited(
        folder[0], tmp_path / "model", "text_config", num_hidden_layers=3
    )
    state = {
        k: v for k, v in state_of(path).items() if "encoder.layer.3." not in k
    }
    safetensors.torch.save_file(state, path / "model.safetensors")
    with pytest.raises(ConversionError, match="counts from the bottom"):
        registry.resolve(path)


def test_unused_norms_are_kept(folder, tmp_path):
    path = edited(
        folder[0], tmp_path / "model", "vision_config", share_layernorm=False
    )
    state = state_of(path)
    key = "bridgetower.vision_model.visual.ln_separate.0.weight"
    state[key] = torch.ones(64)
    safetensors.torch.save_file(state, path / "model.safetensors")
    checkpoint = cache.open_checkpoint(path)
    assert key.removeprefix("bridgetower.") in checkpoint.unread


def test_unused_clip_tensors_are_kept(folder, tmp_path):
    """As in older revisions of the published base size."""
    unused = {
        "vision_model.token_embedding.weight": torch.ones(9, 5),
        "vision_model.positional_embedding": torch.ones(7, 5),
        "vision_model.ln_final.weight": torch.ones(5),
        "vision_model.ln_final.bias": torch.ones(5),
    }
    path = changed(
        folder[0],
        tmp_path / "model",
        lambda s: s.update({f"bridgetower.{k}": v for k, v in unused.items()}),
    )
    assert set(unused) <= set(cache.open_checkpoint(path).unread)


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda s: s.pop("itm_score.fc.bias"), "itm_score.fc.bias is missing"),
        (lambda s: s.update(odd=torch.ones(3)), "odd has no place"),
        (
            lambda s: s.update({"itc_text_head.fc.weight": torch.tensor(1.0)}),
            r"itc_text_head.fc.weight has shape \(\)",
        ),
        (
            lambda s: s.update({"itm_score.fc.weight": torch.ones(2, 127)}),
            r"itm_score.fc.weight has shape \(2, 127\), not \(2, 128\)",
        ),
        (
            lambda s: s["itm_score.fc.weight"].fill_(float("nan")),
            "must be finite.*itm_score.fc.weight",
        ),
        (lambda s: [s.pop(k) for k in list(s)[:30]], "30 in all|is missing"),
    ],
)
def test_bad_tensors(change, found, folder, tmp_path):
    path = changed(folder[0], tmp_path / "model", change)
    with pytest.raises(ConversionError, match=found):
        registry.resolve(path)


def test_nonfinite_weights_load_if_allowed(folder, tmp_path):
    def change(state):
        state["itm_score.fc.bias"][0] = float("inf")

    path = changed(folder[0], tmp_path / "model", change)
    _, heads = cache.open_checkpoint(path).build(allow_nonfinite=True)
    bias = checkpoints.array(heads["itm"].output_dense.bias)
    assert np.isinf(bias[0]) and np.isfinite(bias[1])


@pytest.mark.parametrize("where", ["../model.safetensors", "absent", 3])
def test_bad_index(where, folder, tmp_path):
    path = tmp_path / "model"
    shutil.copytree(folder[0], path)
    (path / "model.safetensors").rename(tmp_path / "model.safetensors")
    index = path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": where}}))
    with pytest.raises(ConversionError, match="files beside it"):
        registry.resolve(path)


@FASTEST
def test_two_processes_convert_at_once(folder, monkeypatch):
    """The second finds what the first wrote while it was at work itself.

    On a file system without locks; with them the second one waits.
    """
    monkeypatch.setattr(files, "locked", contextlib.nullcontext)
    write = manifest.write
    whole, written = [], []

    def write_and_be_overtaken(path):
        write(path)
        if not whole:
            whole.append(path)
            written.append(registry.resolve(folder[0]))

    monkeypatch.setattr(manifest, "write", write_and_be_overtaken)
    assert registry.resolve(folder[0]) == written[0]
    presets = pathlib.Path(written[0]).parent
    assert [p for p in presets.iterdir() if p.is_dir()] == [
        pathlib.Path(written[0])
    ]


def test_destination_created_meanwhile_is_kept(folder, tmp_path, monkeypatch):
    target = tmp_path / "preset"

    def write(path):
        target.mkdir()
        (target / "mine").touch()

    monkeypatch.setattr(manifest, "write", write)
    with pytest.raises(files.FolderExists, match="must not exist yet"):
        cache.open_checkpoint(folder[0]).save_to_preset(target)
    assert [p.name for p in tmp_path.iterdir()] == ["preset"]
    assert [p.name for p in target.iterdir()] == ["mine"]


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_nothing(folder, tmp_path, monkeypatch):
    monkeypatch.setattr("keras.Model.save_weights", full)
    with pytest.raises(OSError, match="No space"):
        registry.resolve(folder[0])
    presets = tmp_path / "home" / "keras_bridgetower" / "presets"
    left = [p.name for p in presets.iterdir() if p.suffix != ".lock"]
    assert left == ["digests.json"]


def test_full_disk_leaves_no_export(folder, tmp_path, monkeypatch):
    parts = checkpoints.preset_parts(registry.resolve(folder[0]))
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space"):
        parts.backbone.export_to_transformers(tmp_path / "back")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]
