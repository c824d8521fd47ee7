"""Checkpoint files of the authors."""

import pathlib
import pickle

import checkpoints
import numpy as np
import official
import peer
import pytest
import torch
import transformers
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import difference

import keras_bridgetower as kbt
from keras_bridgetower.convert import authors
from keras_bridgetower.convert import by_hand as self_check
from keras_bridgetower.convert import cache
from keras_bridgetower.presets.errors import ConversionError

pytestmark = LONG_ELSEWHERE

SHARED = pathlib.Path(__file__).parents[3] / "shared" / "data" / "official"
TASKS = {
    "pretrain": ("itm", "mlm"),
    "vqa": ("vqa",),
    "nlvr2": ("nlvr2",),
    "snli": ("entailment",),
    "retrieval": ("itm", "rank", "itc"),
}


def transformers_model(state, epsilon):
    """Their model with these tensors, its cross-modal epsilon set apart."""
    model = peer.peer(peer.SMALL).bridgetower
    model.load_state_dict(official.as_transformers(state))
    self_check.set_cross_modal_epsilon(model, epsilon)
    return model


def numpy_head(state, key, x):
    """The authors' classifier in closed form."""
    w = {k: state[f"{key}.{k}"].numpy().astype("float64") for k in PARTS}
    x = x @ w["0.weight"].T + w["0.bias"]
    x = (x - x.mean(-1, keepdims=True)) / np.sqrt(
        x.var(-1, keepdims=True) + 1e-5
    )
    x = torch.tensor(x * w["1.weight"] + w["1.bias"])
    x = torch.nn.functional.gelu(x).numpy()
    return x @ w["3.weight"].T + w["3.bias"]


PARTS = [f"{i}.{kind}" for i in (0, 1, 3) for kind in ("weight", "bias")]


@pytest.mark.parametrize("task", TASKS)
def test_every_task_loads_and_agrees(task, tmp_path):
    path = tmp_path / "model.ckpt"
    state = official.save(path, task)
    checkpoint = authors.read(path)
    assert tuple(checkpoint.heads) == TASKS[task]
    backbone, heads = checkpoint.build()
    mine, theirs = peer.inputs(peer.SMALL)
    out = {k: array(v) for k, v in backbone(mine, training=False).items()}
    model = transformers_model(state, authors.LAYER_NORM_EPSILON)
    with torch.no_grad():
        expected = model(**theirs).pooler_output.numpy()
    assert difference(out["pooled"], expected) <= 1e-5
    pooled = expected.astype("float64")
    for name in ("vqa", "entailment"):
        if name in heads:
            key = {"vqa": "vqa", "entailment": "snli"}[name]
            logits = numpy_head(state, f"{key}_classifier", pooled)
            assert difference(array(heads[name](expected)), logits) <= 1e-5
    if "nlvr2" in heads:
        pair = np.concatenate([pooled, pooled[::-1]], axis=-1)
        logits = numpy_head(state, "nlvr2_classifier", pair)
        got = heads["nlvr2"](pair.astype("float32"))
        assert difference(array(got), logits) <= 1e-5
        third = state["token_type_embeddings.weight"][2].numpy()
        assert difference(backbone.fusion.type_embedding[2], third) == 0
    for name, key in (("itm", "itm_score.fc"), ("rank", "rank_output")):
        if name in heads:
            logits = (
                pooled @ state[f"{key}.weight"].numpy().T
                + state[f"{key}.bias"].numpy()
            )
            assert difference(array(heads[name](expected)), logits) <= 1e-5
    if "itc" in heads:
        check_itc(state, backbone, heads["itc"], mine, model, theirs)


def check_itc(state, backbone, head, mine, model, theirs):
    with torch.no_grad():
        states = model(**theirs, output_hidden_states=True).hidden_states
        raw = {
            "text": states[0][-1][:, 0],
            "image": model.vision_model.visual.forward_post(states[1][-1])[
                :, 0
            ],
        }
    got = checkpoints.contrast(backbone, head, mine, None)
    for row, (side, x) in zip(got, raw.items(), strict=True):
        key = f"itc_{side}_head.fc"
        x = x @ state[f"{key}.weight"].T + state[f"{key}.bias"]
        expected = torch.nn.functional.normalize(x, dim=-1).numpy()
        assert difference(row, expected) <= 1e-5
    assert array(head.logit_scale) == pytest.approx(-np.log(0.07), rel=1e-6)


def test_meter(tmp_path):
    path = tmp_path / "meter.ckpt"
    state = official.save(path, "meter", image_layers=3, bridges=False)
    checkpoint = authors.read(path)
    backbone, heads = checkpoint.build()
    assert backbone.fusion.bridge is None and set(heads) == {"itm", "mlm"}
    assert backbone.fusion.taps == (-1, None, None)
    assert backbone.image_encoder.num_layers == 3
    mine, theirs = peer.inputs(peer.SMALL)
    out = backbone(mine, training=False)
    expected = two_towers(state, theirs)
    assert difference(array(out["pooled"]), expected) <= 1e-5


def two_towers(state, inputs):
    """METER's forward pass, put together from transformers' layers."""
    model = peer.peer(peer.SMALL).bridgetower
    visual = model.vision_model.visual
    visual.transformer.resblocks = visual.transformer.resblocks[:3]
    left = model.load_state_dict(
        official.as_transformers(state), strict=False
    ).missing_keys
    # What only a bridged model has.
    assert all("link_tower" in k or "modal_" in k for k in left), left
    self_check.set_cross_modal_epsilon(model, authors.LAYER_NORM_EPSILON)
    mask = inputs["attention_mask"]
    bias = (1.0 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
    with torch.no_grad():
        text = model.text_model(
            inputs["input_ids"], attention_mask=mask
        ).last_hidden_state
        text = model.cross_modal_text_transform(text)
        text = text + model.token_type_embeddings.weight[0]
        image = visual(inputs["pixel_values"], None)[-1]
        image = model.cross_modal_image_transform(image)
        image = image + model.token_type_embeddings.weight[1]
        for text_layer, image_layer in zip(
            model.cross_modal_text_layers,
            model.cross_modal_image_layers,
            strict=True,
        ):
            text, image = (
                text_layer(text, image, attention_mask=bias)[0],
                image_layer(image, text, encoder_attention_mask=bias)[0],
            )
        return model.get_cls_features(text, image).numpy()


def test_norms_per_tap_are_loaded(tmp_path):
    state = official.state_dict("pretrain")
    generator = torch.Generator().manual_seed(1)
    for i in range(official.LAYERS):
        for kind in ("weight", "bias"):
            key = f"vit_model.visual.ln_separate.{i}.{kind}"
            state[key] = torch.randn(official.WIDTH, generator=generator)
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    checkpoint = authors.read(tmp_path / "model.ckpt")
    backbone, _ = checkpoint.build()
    assert backbone.image_norms == "per_tap"
    norms = {w.path: array(w) for w in backbone.weights if "tap_" in w.path}
    assert len(norms) == 6
    for index, block in enumerate((1, 2, 3)):
        key = f"vit_model.visual.ln_separate.{block}"
        assert (
            difference(
                norms[f"tap_{index}_norm/gamma"], state[f"{key}.weight"].numpy()
            )
            == 0
        )
    assert "vit_model.visual.ln_separate.0.bias" in checkpoint.unread


@pytest.mark.parametrize("task", ["pretrain", "vqa"])
def test_outputs_equal_the_authors(task):
    path = SHARED / f"{task}.ckpt"
    if not path.is_file():
        pytest.skip(f"the authors' outputs are not here: {SHARED}")
    expected = np.load(path.with_suffix(".npz"))
    inputs = np.load(SHARED / "inputs.npz")
    backbone, heads = authors.read(path).build()
    features = {
        "images": inputs["image"],
        "token_ids": inputs["ids"].astype("int32"),
        "padding_mask": inputs["mask"].astype("int32"),
    }
    kept = inputs["mask"] == 1
    out = {k: array(v) for k, v in backbone(features, training=False).items()}
    found = {
        "pooled": difference(out["pooled"], expected["cls_feats"]),
        "text": difference(out["text"][kept], expected["text_feats"][kept]),
        "image": difference(out["image"], expected["image_feats"]),
    }
    for name in heads:
        x = out["text" if name == "mlm" else "pooled"]
        got, wanted = array(heads[name](x)), expected[name]
        if name == "mlm":
            got, wanted = got[kept], wanted[kept]
        found[name] = difference(got, wanted)
    print(found)
    assert max(found.values()) <= 1e-4, found


@FASTEST
def test_vqa_task_needs_the_answers(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path))
    path = tmp_path / "model.ckpt"
    state = official.save(path, "vqa")
    answers = [f"answer {i}" for i in range(official.ANSWERS)]
    with pytest.warns(UserWarning, match="no tokenizer files"):
        vqa = kbt.BridgeTowerVQA.from_preset(path, answers=answers)
    kernel = array(vqa.heads["vqa"].output_dense.kernel)
    weight = state["vqa_classifier.3.weight"].numpy()
    np.testing.assert_array_equal(kernel, weight.T)
    with (
        pytest.warns(UserWarning, match="head vqa.*with other values"),
        pytest.warns(UserWarning, match="no tokenizer files"),
    ):
        kbt.BridgeTowerVQA.from_preset(path, answers=["yes", "no"])
    with (
        pytest.warns(UserWarning, match="no tokenizer files"),
        pytest.raises(ValueError, match="`answers` must list the classes"),
    ):
        kbt.BridgeTowerVQA.from_preset(path)


@pytest.mark.parametrize("task, width", [("snli", 128), ("nlvr2", 192)])
def test_head_widths_come_from_the_shapes(task, width, tmp_path):
    # The authors' scales 1 and 1.5: heads of 2D and 3D, D = 64.
    key = f"{task}_classifier"
    state = official.save(tmp_path / "model.ckpt", task)
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        state[f"{key}.{name}"] = state[f"{key}.{name}"][:width]
    state[f"{key}.3.weight"] = state[f"{key}.3.weight"][:, :width]
    torch.save({"state_dict": state}, tmp_path / "narrow.ckpt")
    _, heads = authors.read(tmp_path / "narrow.ckpt").build()
    head = heads[TASKS[task][0]]
    columns = state[f"{key}.0.weight"].shape[1]
    x = np.random.default_rng(0).normal(size=(2, columns))
    expected = numpy_head(state, key, x)
    assert difference(array(head(x.astype("float32"))), expected) <= 1e-5


def test_authors_checkpoint_exports_to_transformers(tmp_path):
    state = official.save(tmp_path / "model.ckpt", "vqa")
    checkpoint = authors.read(tmp_path / "model.ckpt")
    backbone, _ = checkpoint.build()
    with pytest.warns(UserWarning, match="layer_norm_epsilon=1e-12"):
        backbone.export_to_transformers(tmp_path / "back")
    model = transformers.BridgeTowerModel.from_pretrained(tmp_path / "back")
    mine = model.state_dict()
    skipped = ("position_embeddings", "token_type_embeddings")
    for name, tensor in official.as_transformers(state).items():
        if not any(part in name for part in skipped) or "text_" not in name:
            assert torch.equal(mine[name], tensor), name


class Malicious:
    def __reduce__(self):
        return (pathlib.Path.touch, (pathlib.Path("executed"),))


def test_code_in_checkpoints_is_rejected_and_not_run(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    state = official.state_dict("vqa")
    for file in (
        {"state_dict": state | {"odd": Malicious()}},
        {"state_dict": state, "hyper_parameters": Malicious()},
        state | {"odd": Malicious()},
        Malicious(),
    ):
        torch.save(file, "bad.ckpt")
        with pytest.raises(ConversionError, match="needs the code of"):
            authors.read("bad.ckpt")
    pathlib.Path("worse.ckpt").write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ConversionError, match="worse.ckpt"):
        authors.read("worse.ckpt")
    assert not pathlib.Path("executed").exists()


@pytest.mark.parametrize(
    "change, found",
    [
        (lambda s: s.update(name="text"), "name: str"),
        (lambda s: s.update(odd=torch.ones(1).expand(9, 9)), "odd: Tensor"),
        (lambda s: s.update(temperature=torch.tensor(-1.0)), "positive"),
        (lambda s: s.pop("vit_model.visual.conv1.weight"), "another model"),
        (lambda s: s.clear(), "must hold dense tensors"),
        (
            lambda s: s.update({"itc_text_head.fc.weight": torch.tensor(1.0)}),
            r"itc_text_head.fc.weight has shape \(\)",
        ),
        (
            lambda s: s.update({"itc_text_head.fc.weight": torch.ones(0, 64)}),
            "A head must have a matrix",
        ),
    ],
)
def test_bad_state_dicts(change, found, tmp_path):
    state = official.state_dict("retrieval")
    change(state)
    torch.save({"state_dict": state}, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match=found):
        authors.read(tmp_path / "model.ckpt").build()


@pytest.mark.parametrize(
    "values",
    [{"num_heads": "4"}, {"num_heads": 5}, {"drop_rate": 2.0}],
)
def test_bad_hyper_parameters(values, tmp_path):
    state = official.state_dict("pretrain")
    file = {"state_dict": state, "hyper_parameters": {"config": values}}
    torch.save(file, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError):
        authors.read(tmp_path / "model.ckpt").build()


@pytest.mark.parametrize(
    "value, shown",
    [
        (10**500, "a number of 1661 bits"),
        ("\x1b[2J" * 1000, r"'\\x1b\[2J"),
        (float("nan"), "nan"),
        ([[[1]]], "list"),
    ],
    ids=["large", "escape_codes", "nan", "list"],
)
def test_messages_of_odd_hyper_parameters_are_short(value, shown, tmp_path):
    file = {
        "state_dict": official.state_dict("vqa"),
        "hyper_parameters": {"config": {"drop_rate": value}},
    }
    torch.save(file, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match=f"drop_rate={shown}") as error:
        authors.read(tmp_path / "model.ckpt")
    assert len(str(error.value)) < 500 and str(error.value).isprintable()


SIZES = {
    "vocab_size": official.ROWS,
    "hidden_size": official.WIDTH,
    "num_layers": official.FUSED,
    "image_size": official.SIDE,
}


@pytest.mark.parametrize("key", SIZES)
def test_sizes_that_contradict_tensors_are_rejected(key, tmp_path):
    path = tmp_path / "model.ckpt"

    def read(**changes):
        file = {
            "state_dict": official.state_dict("vqa"),
            "hyper_parameters": {"config": SIZES | changes},
        }
        torch.save(file, path)
        return authors.read(path)

    assert read().architecture.image_size == official.SIDE
    # The convolution leaves out what does not fill a patch.
    assert read(image_size=official.SIDE + 15).architecture
    for value in (SIZES[key] * 2, str(SIZES[key])):
        with pytest.raises(ConversionError, match=f"{key}=.*in its tensors"):
            read(**{key: value})


def test_values_too_large_for_the_variable_are_rejected(tmp_path):
    state = official.state_dict("vqa")
    key = "vqa_classifier.3.bias"
    state[key] = state[key].double()
    state[key][0] = 1e300
    torch.save(state, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match=f"must be finite.*{key}"):
        authors.read(tmp_path / "model.ckpt").build()
    state[key][0] = 0.0
    rows = "text_transformer.embeddings.position_embeddings.weight"
    folded = "text_transformer.embeddings.token_type_embeddings.weight"
    state[rows][5, 0] = state[folded][0, 0] = 3e38
    torch.save(state, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match=f"must be finite.*{rows}"):
        authors.read(tmp_path / "model.ckpt").build()


def test_half_precision_is_added_in_float32(tmp_path):
    state = official.state_dict("vqa")
    rows = "text_transformer.embeddings.position_embeddings.weight"
    folded = "text_transformer.embeddings.token_type_embeddings.weight"
    state[rows], state[folded] = state[rows].half(), state[folded].half()
    state[rows][5, 0] = state[folded][0, 0] = 60000.0
    torch.save(state, tmp_path / "model.ckpt")
    backbone, _ = authors.read(tmp_path / "model.ckpt").build()
    (table,) = (
        array(w)
        for w in backbone.weights
        if "position_embedding" in w.path
        and array(w).shape == (64, official.WIDTH)
    )
    expected = state[rows].float()[2:] + state[folded].float()
    np.testing.assert_array_equal(table, expected.numpy())


class Callback:
    """What Lightning keeps of a class that is not there."""


def test_objects_beside_the_state_dict_are_skipped(tmp_path):
    file = {
        "state_dict": official.state_dict("vqa"),
        "callbacks": {Callback: {"best": np.float32(1)}, "more": Callback()},
        "malicious": Malicious(),
    }
    torch.save(file, tmp_path / "model.ckpt")
    assert authors.read(tmp_path / "model.ckpt").heads
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]


def test_names_may_be_left_by_pattern(tmp_path):
    state = official.state_dict("pretrain") | {"queue.ids": torch.ones(3)}
    torch.save(state, tmp_path / "model.ckpt")
    with pytest.raises(ConversionError, match="queue.ids has no place"):
        authors.read(tmp_path / "model.ckpt")
    checkpoint = authors.read(tmp_path / "model.ckpt", ignore=(r"queue\..*",))
    assert "queue.ids" in checkpoint.unread


@FASTEST
def test_cache_knows_the_tokenizer_beside(tmp_path, monkeypatch):
    monkeypatch.setenv("KERAS_HOME", str(tmp_path / "home"))
    official.save(tmp_path / "model.ckpt", "pretrain")
    first = cache.open_converted(tmp_path / "model.ckpt").root
    (tmp_path / "unrelated.json").write_text("{}")
    assert cache.open_converted(tmp_path / "model.ckpt").root == first
    tokens = ["<s>", "<pad>", "</s>", "<unk>", "<mask>", "a"]
    kbt.BridgeTowerTokenizer(
        {t: i for i, t in enumerate(tokens)}, []
    ).save_assets(tmp_path)
    (tmp_path / "vocabulary.json").rename(tmp_path / "vocab.json")
    second = cache.open_converted(tmp_path / "model.ckpt").root
    assert second != first and (second / "tokenizer.json").is_file()
