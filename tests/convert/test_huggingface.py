"""Folders of transformers, with processors: the same, and the way back.

Base and large at full size need some GB of memory; -m slow.
"""

import json
import pathlib
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
from builders import features
from builders import shallow
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower import files
from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.convert import cache
from keras_bridgetower.convert import export
from keras_bridgetower.convert import processors
from keras_bridgetower.convert.transformers_folder import read
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.errors import ConversionError

pytestmark = [LONG_ELSEWHERE, pytest.mark.usefixtures("home")]


@pytest.fixture(scope="module")
def three_heads(tmp_path_factory):
    """A folder of transformers with three heads, and its models."""
    path = tmp_path_factory.mktemp("theirs") / "model"
    return path, checkpoints.with_all_heads(path)


@pytest.fixture
def copied(three_heads, tmp_path):
    return shutil.copytree(three_heads[0], tmp_path / "model")


@torch.no_grad()
def outputs(model, inputs, **kwargs):
    return model(**inputs, **kwargs)


@FASTEST
@pytest.mark.filterwarnings("ignore")
def test_convert_and_export(three_heads, tmp_path, run):
    preset, back = tmp_path / "preset", tmp_path / "back"
    printed = run("convert", three_heads[0], preset, "--verify").out
    assert "itm, mlm, itc" in printed
    assert "tensors equal to the bit\t318" in printed
    found = json.loads(run("export", preset, back, "--verify", "--json").out)
    assert "BridgeTowerForMaskedLM" in found["classes"]
    assert float(found["max |difference|"]) <= 1e-5
    said = run("export", preset, back, code=1)
    assert "`destination` must not exist yet" in said.err
    before, after = copies.tensors(three_heads[0]), copies.tensors(back)
    assert before.keys() == after.keys()
    # Types of tokens are added to positions.
    key = "bridgetower.text_model.embeddings.{}_embeddings.weight"
    position, kind = key.format("position"), key.format("token_type")
    for state in (before, after):
        state[position] = state[position] + state.pop(kind)
    for name, tensor in before.items():
        assert torch.equal(tensor, after[name]), name


@FASTEST
def test_what_transformers_has_no_place_for_is_not_exported(tmp_path):
    mine = {"mine": keras.layers.Dense(1, name="mine_head")}
    narrow = backbone(image_encoder=clip(layers=2, heads=1))
    tapped = backbone(image_taps=(-3, -1))
    managed = shallow(bridge="static_manager")
    ids = {"<pad>": 0, "<s>": 1, "</s>": 2, "<unk>": 3, "<mask>": 4}
    padded = kbt.BridgeTowerTokenizer(ids, [])
    for body, heads, words, found in (
        (narrow, {}, None, "heads=1, not one of .0,"),
        (tapped, {}, None, "image_taps=.-3, -1., not"),
        (managed, {}, None, "bridge=.static_manager"),
        (shallow(), {}, padded, "pad_token_id=0, not"),
        (shallow(), mine, None, "head=.mine., not one of"),
    ):
        configs = dict.fromkeys(heads, {})
        parts = export.Parts(body, heads, configs, words, None)
        with pytest.raises(ConversionError, match=found):
            export.write(parts, tmp_path / "back")
    with pytest.raises(files.FolderExists, match="`path` must not exist"):
        narrow.export_to_transformers(tmp_path)


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


@pytest.mark.parametrize("form", ["sharded", "pickled shards", "bfloat16"])
def test_forms_of_weight_files(form, three_heads, tmp_path):
    path, models = three_heads
    target = tmp_path / "model"
    target.mkdir()
    shutil.copy(path / "config.json", target)
    state = models["itm"].state_dict()
    if form == "sharded":
        models["itm"].save_pretrained(target, max_shard_size="1MB")
        assert len(list(target.glob("*.safetensors"))) > 1
    elif form == "bfloat16":
        state = {k: v.to(torch.bfloat16) for k, v in state.items()}
        safetensors.torch.save_file(state, target / "model.safetensors")
    else:
        names = list(state)
        shards = {"one.bin": names[:99], "two.bin": names[99:]}
        where = {k: file for file, part in shards.items() for k in part}
        index = target / "pytorch_model.bin.index.json"
        index.write_text(json.dumps({"weight_map": where}))
        for file, part in shards.items():
            torch.save({k: state[k] for k in part}, target / file)
    tensors = cache.open_checkpoint(target).tensors
    for name, tensor in state.items():
        found = tensors.read(name.removeprefix("bridgetower."))
        expected = tensor.float() if form == "bfloat16" else tensor
        np.testing.assert_array_equal(found, expected.numpy())


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


UNUSED = (
    "vision_model.visual.ln_separate.0.weight",
    # As in older revisions of the published base size.
    "vision_model.token_embedding.weight",
    "vision_model.positional_embedding",
    "vision_model.ln_final.bias",
)


def test_unused_tensors_are_kept(copied):
    copies.update(
        copied / "config.json", "vision_config", share_layernorm=False
    )
    new = {f"bridgetower.{name}": torch.ones(7, 5) for name in UNUSED}
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
    index = json.dumps({"weight_map": {"a": where}})
    (copied / "model.safetensors.index.json").write_text(index)
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


def test_full_disk_leaves_nothing(three_heads, home, tmp_path, monkeypatch):
    def full(*args, **kwargs):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as broken:
        broken.setattr("keras.Model.save_weights", full)
        with pytest.raises(OSError, match="No space"):
            registry.resolve(three_heads[0])
    presets = home / "keras_bridgetower" / "presets"
    left = [p.name for p in presets.iterdir() if p.suffix != ".lock"]
    assert {*left} <= {"digests.json"}
    monkeypatch.setattr("safetensors.numpy.save_file", full)
    made, _ = cache.open_checkpoint(three_heads[0]).build()
    with pytest.raises(OSError, match="No space"):
        made.export_to_transformers(tmp_path / "back")
    assert [p.name for p in tmp_path.iterdir()] == ["home"]


def test_contrastive_loss_and_scale(tmp_path):
    theirs = checkpoints.theirs("itc")
    with torch.no_grad():
        # Another one than a new head starts with.
        theirs.logit_scale.fill_(1.9)
    theirs.save_pretrained(tmp_path / "theirs")
    with pytest.warns(UserWarning, match="no tokenizer files"):
        ours = kbt.BridgeTowerContrastive.from_preset(tmp_path / "theirs")
    assert (ours.ways, ours.projection_dim) == ("three_way", 24)
    scale = ours.heads["itc"].logit_scale
    assert float(array(scale)) == pytest.approx(1.9, abs=1e-7)
    features, inputs = peer.inputs(checkpoints.SIZE, batch=4)
    expected = outputs(theirs, inputs, return_loss=True).loss
    ours.compile(jit_compile=False)
    loss, _ = ours.evaluate(features, verbose=0)
    assert abs(loss - float(expected)) <= 1e-5


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


def adapted(model):
    """Adapters that change what the model says."""
    rng = np.random.default_rng(0)
    for weight in model.weights:
        if "lora_" in weight.path:
            weight.assign(rng.normal(size=weight.shape, scale=0.2))
    return model


def test_merged_for_transformers(tmp_path):
    """A task of transformers' weights, adapted in body and head."""
    checkpoints.theirs().save_pretrained(tmp_path / "model")
    with pytest.warns(UserWarning, match="no tokenizer files"):
        task = kbt.BridgeTowerRetrieval.from_preset(tmp_path / "model")
    task.enable_lora(2)
    next(iter(layers_in(task.heads["itm"]))).enable_lora(2)
    task.backbone.text_encoder.token_embedding.enable_lora(3, lora_alpha=1.5)
    adapted(task)
    task.export_to_transformers(tmp_path / "theirs")
    theirs = checkpoints.HEADS["itm"].from_pretrained(tmp_path / "theirs")
    features, inputs = peer.inputs(checkpoints.SIZE)
    found = outputs(theirs.eval(), inputs).logits.numpy()
    assert difference(found, task(features, training=False)) <= 1e-5
    # The adapters are still there, and count.
    adapter = task.backbone.text_encoder.token_embedding.lora_embeddings_b
    adapter.assign(adapter * 2)
    assert difference(found, task(features, training=False)) > 1e-3


@FASTEST
def test_merged_for_another_image_size():
    model = shallow()
    model.enable_lora(2)
    expected = array(adapted(model)(features())["pooled"])
    resized = model.with_image_size(model.image_size)
    assert difference(resized(features())["pooled"], expected) <= 1e-6


ROBERTA = pathlib.Path(__file__).parents[3] / "shared" / "data" / "roberta"


def configure(path, **values):
    """Write the file of an image processor."""
    size = {"shortest_edge": 64}
    config = {"size": size, "crop_size": size, **values}
    (path / "preprocessor_config.json").write_text(json.dumps(config))


@pytest.mark.skipif(not ROBERTA.is_dir(), reason=f"{ROBERTA} is not here")
def test_processors_round_trip(tmp_path):
    folder, back = tmp_path / "model", tmp_path / "back"
    size = {**checkpoints.SIZE, "vocabulary": 50_265}
    checkpoints.theirs(size=size).save_pretrained(folder)
    side = {"shortest_edge": 64}
    transformers.BridgeTowerProcessor(
        transformers.BridgeTowerImageProcessorPil(
            size=side, crop_size=side, size_divisor=16
        ),
        transformers.RobertaTokenizer(
            str(ROBERTA / "vocab.json"), str(ROBERTA / "merges.txt")
        ),
    ).save_pretrained(folder)
    tokenizer, converter = read(folder).processors
    assert (converter.mode, converter.size_divisor) == ("hf", 16)
    assert tokenizer.vocabulary_size() == 50_265
    tokenizer.sequence_length = 11
    back.mkdir()
    processors.write(back, tokenizer, converter)
    for name in ("config.json", "model.safetensors"):
        shutil.copy(folder / name, back)
    assert read(back).processors[0].sequence_length == 11
    theirs = transformers.BridgeTowerProcessor.from_pretrained(back)
    for text in ("two cats, o'don  2015", "a  dog's café ☕"):
        ids = tokenizer(text)
        ids = ids[ids != tokenizer.pad_token_id].tolist()
        assert theirs.tokenizer(text)["input_ids"] == ids
    assert theirs.image_processor.size == side
    assert theirs.image_processor.size_divisor == 16


def test_white_space_before_a_mask_belongs_to_it(tmp_path):
    ours = tokenizer()
    processors.write(tmp_path, ours, None)
    theirs = transformers.RobertaTokenizer.from_pretrained(tmp_path)
    for text in ("is it <mask>?", "a <mask> or <mask> thing", "x<mask>"):
        ids = ours.encode_with_masks(text)["token_ids"]
        ids = ids[ids != ours.pad_token_id]
        assert theirs(text)["input_ids"] == ids.tolist()


def test_statistics_go_to_a_preset_and_back(tmp_path):
    path = tmp_path / "model"
    size = {**checkpoints.SIZE, "vocabulary": 300, "layers": 2, "fused": 1}
    checkpoints.theirs(size=size).save_pretrained(path)
    statistics = dict(image_mean=[0.1, 0.5, 0.7], image_std=[0.5, 0.6, 0.3])
    configure(path, **statistics)
    processors.write(path, tokenizer(), None)
    task = kbt.BridgeTowerRetrieval.from_preset(path, random_heads=True)
    task.save_to_preset(tmp_path / "preset")
    task = kbt.BridgeTowerRetrieval.from_preset(tmp_path / "preset")
    converter = task.preprocessor.image_converter
    assert list(converter.mean) == statistics["image_mean"]
    assert list(converter.std) == statistics["image_std"]
    task.export_to_transformers(tmp_path / "back")
    file = tmp_path / "back" / "preprocessor_config.json"
    written = json.loads(file.read_text())
    assert {name: written[name] for name in statistics} == statistics
    # transformers' class cannot have a tokenizer of another class.
    task.preprocessor.tokenizer = kbt.BridgeTowerJsonTokenizer(
        {"model": {"vocab": {f"<{i}>": i for i in range(4)}, "merges": []}},
        special_tokens=[f"<{i}>" for i in range(4)],
    )
    with pytest.raises(
        ConversionError, match="tokenizer='BridgeTowerJsonTokenizer'"
    ):
        task.export_to_transformers(tmp_path / "other")
    assert not (tmp_path / "other").exists()


@pytest.mark.parametrize(
    "values, found",
    [
        ({"mode": "crop"}, "mode='crop'.*image_mode='crop'"),
        ({"mode": "hf", "resample": "lanczos"}, "no place for.*'lanczos'"),
    ],
)
def test_export_warns_of_other_pixels(values, found, tmp_path):
    converter = kbt.BridgeTowerImageConverter(64, **values)
    with pytest.warns(UserWarning, match=found):
        processors.write(tmp_path, None, converter)


@pytest.mark.parametrize(
    "values",
    [
        {"size": {"shortest_edge": 288}},
        {"max_text_len": "much"},
        {"image_processor_type": "CLIPImageProcessor"},
    ],
)
def test_other_image_processors_are_refused(values, copied):
    """Others are in `test_what_makes_no_squares_is_refused`."""
    configure(copied, **values)
    with pytest.raises(ConversionError, match="preprocessor_config.json"):
        read(copied)


def test_vocabulary_larger_than_model_is_rejected(copied):
    processors.write(copied, tokenizer(), None)
    with pytest.raises(ConversionError, match="261 tokens, 100 rows"):
        read(copied)
