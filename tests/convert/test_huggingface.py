"""Folders of transformers: the same numbers, and the way back.

Base and large at full size need some GB of memory; -m slow.
"""

import json
import shutil
import warnings

import checkpoints
import copies
import keras
import numpy as np
import peer
import pytest
import safetensors.torch
import torch
import transformers
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import backbone
from builders import clip
from builders import difference

import keras_bridgetower as kbt
from keras_bridgetower import files
from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.errors import ConversionError

pytestmark = [LONG_ELSEWHERE, pytest.mark.usefixtures("home")]


@pytest.fixture
def copied(three_heads, tmp_path):
    return shutil.copytree(three_heads[0], tmp_path / "model")


def outputs(model, inputs, **kwargs):
    with torch.no_grad():
        return model(**inputs, **kwargs)


def test_all_heads_and_back(three_heads, tmp_path):
    path, models = three_heads
    parts = checkpoints.preset_parts(registry.resolve(path))
    got = checkpoints.run_ours(parts.backbone, parts.heads)
    found = checkpoints.differences(got, checkpoints.run_theirs(models))
    assert max(found.values()) <= 1e-5, found

    back = tmp_path / "back"
    export.write(parts, back)
    before, after = copies.tensors(path), copies.tensors(back)
    assert set(before) == set(after)
    key = "bridgetower.text_model.embeddings.{}_embeddings.weight"
    folded = [key.format("position"), key.format("token_type")]
    for name, tensor in before.items():
        if name not in folded:
            assert torch.equal(tensor, after[name]), name
    sums = [state[folded[0]] + state[folded[1]] for state in (before, after)]
    assert torch.equal(*sums)


@FASTEST
def test_what_transformers_has_no_place_for_is_not_exported(tmp_path):
    heads = {"mine": keras.layers.Dense(1, name="mine_head")}
    narrow = backbone(image_encoder=clip(layers=2, heads=1))
    tapped = backbone(image_taps=(-3, -1))
    managed = backbone(bridge="static_manager")
    ids = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    padded = kbt.BridgeTowerTokenizer(ids, [])
    for parts, found in (
        (export.Parts(narrow, {}, {}, None, None), "heads=1, not one of .0,"),
        (export.Parts(tapped, {}, {}, None, None), "image_taps=.-3, -1., not"),
        (export.Parts(managed, {}, {}, None, None), "bridge=.static_manager"),
        (export.Parts(backbone(), {}, {}, padded, None), "pad_token_id=0, not"),
        (
            export.Parts(backbone(), heads, {"mine": {}}, None, None),
            "head=.mine., not one of",
        ),
    ):
        with pytest.raises(ConversionError, match=found):
            export.write(parts, tmp_path / "back")
    with pytest.raises(files.FolderExists, match="`path` must not exist"):
        narrow.export_to_transformers(tmp_path)
    # So many heads would theirs have.
    with pytest.raises(ValueError, match="num_heads=0"):
        transformers.BridgeTowerModel(
            transformers.BridgeTowerConfig(vision_config={"hidden_size": 16})
        )


@pytest.mark.parametrize(
    "link, shared", [("scaled_add", True), ("interpolate", False)]
)
def test_links_and_projections_are_exported(link, shared, tmp_path):
    model = checkpoints.theirs(link=link, shared_projections=shared)
    model.save_pretrained(tmp_path / "model")
    backbone, _ = cache.open_checkpoint(tmp_path / "model").build()
    backbone.export_to_transformers(tmp_path / "back")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        back, report = transformers.BridgeTowerModel.from_pretrained(
            tmp_path / "back", output_loading_info=True
        )
    assert not any(report.values()), report
    _, inputs = peer.inputs(checkpoints.SIZE)
    a = outputs(model.bridgetower, inputs).pooler_output
    b = outputs(back.eval(), inputs).pooler_output
    assert float((a - b).abs().max()) <= 1e-6


@pytest.mark.parametrize("form", ["sharded", "pickled shards"])
def test_forms_of_weight_files(form, three_heads, tmp_path):
    path, models = three_heads
    target = tmp_path / "model"
    target.mkdir()
    state = models["itm"].state_dict()
    if form == "sharded":
        models["itm"].save_pretrained(target, max_shard_size="1MB")
        assert len(list(target.glob("*.safetensors"))) > 1
    else:
        shutil.copy(path / "config.json", target)
        names = list(state)
        shards = {"one.bin": names[:99], "two.bin": names[99:]}
        where = {k: file for file, part in shards.items() for k in part}
        index = target / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"weight_map": where}))
        for file, part in shards.items():
            torch.save({k: state[k] for k in part}, target / file)
    tensors = cache.open_checkpoint(target).tensors
    for name, tensor in state.items():
        short = name.removeprefix("bridgetower.")
        np.testing.assert_array_equal(tensors.read(short), tensor.numpy())


def test_half_precision_files(three_heads, tmp_path):
    path, models = three_heads
    shutil.copy(path / "config.json", tmp_path)
    state = models["itm"].state_dict()
    state = {k: v.to(torch.bfloat16) for k, v in state.items()}
    safetensors.torch.save_file(state, tmp_path / "model.safetensors")
    backbone, _ = cache.open_checkpoint(tmp_path).build()
    expected = state["bridgetower.cross_modal_text_pooler.dense.weight"]
    np.testing.assert_array_equal(
        backbone.fusion.text_pooler.kernel, expected.float().numpy().T
    )


@FASTEST
def test_cross_modal_layers_follow_the_text_configuration(tmp_path):
    path = tmp_path / "model"
    peer.peer(peer.SMALL | {"heads": 2}).save_pretrained(path)
    # What stands at the top is read by nothing in transformers.
    unread = dict(num_attention_heads=4, intermediate_size=7)
    copies.update(path / "config.json", **unread, layer_norm_eps=0.5)
    rates = {"hidden_dropout_prob": 0.25, "attention_probs_dropout_prob": 0.3}
    copies.update(path / "config.json", "text_config", **rates)
    theirs = transformers.BridgeTowerModel.from_pretrained(path).eval()
    features, inputs = peer.inputs(peer.SMALL)
    with pytest.warns(UserWarning, match="used in the fusion alone"):
        backbone = kbt.BridgeTowerBackbone.from_preset(path)
    got = backbone(features, training=False)["pooled"]
    assert difference(got, outputs(theirs, inputs).pooler_output) <= 1e-5
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
        checkpoints.array(heads["mlm"].decoder.kernel), table.detach().numpy().T
    )


@pytest.mark.parametrize(
    "level, key, value",
    [
        (None, "share_link_tower_layers", True),
        (None, "link_tower_type", "gate"),
        (None, "link_tower_type", "scaled_add"),
        (None, "num_hidden_layers", 10**9),
        (None, "hidden_size", "64"),
        ("text_config", "vocab_size", 10**12),
        ("text_config", "num_attention_heads", 7),
        ("text_config", "layer_norm_eps", 1e-12),
        ("text_config", "hidden_act", "relu"),
        ("text_config", "is_decoder", True),
        ("text_config", "pad_token_id", 0),
        ("text_config", "type_vocab_size", 2),
        ("vision_config", "remove_last_layer", True),
    ],
)
def test_bad_configurations(level, key, value, copied, home):
    copies.update(copied / "config.json", level, **{key: value})
    names = {
        "num_attention_heads": "must fit together",
        "remove_last_layer": "vision num_hidden",
    }
    with pytest.raises(ConversionError, match=names.get(key, key)):
        registry.resolve(copied)
    assert not list(home.glob("keras_bridgetower/presets/*/"))


def test_unequal_depths_are_refused(copied):
    copies.update(copied / "config.json", "text_config", num_hidden_layers=3)
    copies.edit_tensors(
        copied, lambda s: [s.pop(k) for k in list(s) if "encoder.layer.3." in k]
    )
    with pytest.raises(ConversionError, match="counts from the bottom"):
        registry.resolve(copied)


UNUSED = {
    "vision_model.visual.ln_separate.0.weight": torch.ones(64),
    # As in older revisions of the published base size.
    "vision_model.token_embedding.weight": torch.ones(9, 5),
    "vision_model.positional_embedding": torch.ones(7, 5),
    "vision_model.ln_final.weight": torch.ones(5),
    "vision_model.ln_final.bias": torch.ones(5),
}


def test_unused_tensors_are_kept(copied):
    copies.update(
        copied / "config.json", "vision_config", share_layernorm=False
    )
    new = {f"bridgetower.{k}": v for k, v in UNUSED.items()}
    copies.edit_tensors(copied, lambda s: s.update(new))
    assert set(UNUSED) <= set(cache.open_checkpoint(copied).unread)


def test_nonfinite_weights_load_if_allowed(copied):
    copies.edit_tensors(
        copied, lambda s: s["itm_score.fc.bias"][:1].fill_(float("inf"))
    )
    checkpoint = cache.open_checkpoint(copied)
    with pytest.raises(ConversionError, match="must be finite.*itm_score"):
        checkpoint.build()
    _, heads = checkpoint.build(allow_nonfinite=True)
    bias = checkpoints.array(heads["itm"].output_dense.bias)
    assert np.isinf(bias[0]) and np.isfinite(bias[1])


@pytest.mark.parametrize("where", ["../model.safetensors", "absent", 3])
def test_bad_index(where, copied):
    (copied / "model.safetensors").rename(copied.parent / "model.safetensors")
    index = copied / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": where}}))
    with pytest.raises(ConversionError, match="files beside it|regular file"):
        registry.resolve(copied)


def test_destination_created_meanwhile_is_kept(
    three_heads, tmp_path, monkeypatch
):
    target = tmp_path / "preset"

    def write(path):
        target.mkdir()
        (target / "mine").touch()

    monkeypatch.setattr(manifest, "write", write)
    with pytest.raises(files.FolderExists, match="must not exist yet"):
        cache.open_checkpoint(three_heads[0]).save_to_preset(target)
    assert [p.name for p in tmp_path.iterdir()] == ["preset"]
    assert [p.name for p in target.iterdir()] == ["mine"]


def full(*args, **kwargs):
    raise OSError(28, "No space left on device")


def test_full_disk_leaves_nothing(three_heads, home, tmp_path, monkeypatch):
    with monkeypatch.context() as broken:
        broken.setattr("keras.Model.save_weights", full)
        with pytest.raises(OSError, match="No space"):
            registry.resolve(three_heads[0])
    presets = home / "keras_bridgetower" / "presets"
    left = [p.name for p in presets.iterdir() if p.suffix != ".lock"]
    assert {*left} <= {"digests.json"}
    parts = checkpoints.preset_parts(registry.resolve(three_heads[0]))
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    with pytest.raises(OSError, match="No space"):
        parts.backbone.export_to_transformers(tmp_path / "back")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_contrastive_outputs_loss_and_scale(tmp_path):
    theirs = checkpoints.theirs("itc")
    with torch.no_grad():
        # Another one than a new head starts with.
        theirs.logit_scale.fill_(1.9)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="no tokenizer files"):
        ours = kbt.BridgeTowerContrastive.from_preset(tmp_path / "theirs")
    assert (ours.ways, ours.projection_dim) == ("three_way", 24)

    features, inputs = peer.inputs(checkpoints.SIZE, batch=4)
    with torch.no_grad():
        expected = theirs(**inputs, return_loss=True)
    found = ours(features, training=False)
    for name, value in (
        ("text", expected.text_embeds),
        ("image", expected.image_embeds),
        ("fused", expected.cross_embeds),
    ):
        assert np.abs(array(found[name]) - value.numpy()).max() <= 1e-5

    scale = ours.heads["itc"].logit_scale
    assert float(array(scale)) == pytest.approx(1.9, abs=1e-7)
    ours.compile(jit_compile=False)
    loss, _ = ours.evaluate(features, verbose=0)
    assert abs(loss - float(expected.loss)) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["base", "large"])
def test_every_head_at_full_size(name, tmp_path):
    if name == "large" and keras.config.backend() != "torch":
        pytest.skip("large is compared on PyTorch alone, for its memory")
    size = {"base": peer.BASE, "large": peer.LARGE}[name]
    models = checkpoints.with_all_heads(tmp_path / "theirs", size=size)
    expected = checkpoints.run_theirs(models, size)
    del models
    parts = checkpoints.preset_parts(registry.resolve(tmp_path / "theirs"))
    got = checkpoints.run_ours(parts.backbone, parts.heads, size)
    found = checkpoints.differences(got, expected)
    print(name, keras.config.backend(), found)
    assert max(found.values()) <= 2e-4, found
