"""Checkpoint files of the authors of BridgeTower, METER and ManagerTower."""

import functools
import json
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
from builders import classifier_head
from builders import difference
from builders import slow_on

import keras_bridgetower as kbt
from keras_bridgetower.convert import authors
from keras_bridgetower.convert import by_hand
from keras_bridgetower.convert.checkpoint import to_tensors
from keras_bridgetower.convert.checkpoint import variables_by_path
from keras_bridgetower.encoders.roberta import PaddedRobertaBackbone
from keras_bridgetower.models.managers import MANAGERS
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
EMBEDDINGS = "text_transformer.embeddings"
ROWS = f"{EMBEDDINGS}.position_embeddings.weight"
FOLDED = f"{EMBEDDINGS}.token_type_embeddings.weight"


@pytest.fixture
def path(tmp_path):
    return tmp_path / "model.ckpt"


def saved(path, state, config=None, **others):
    """An opened file of these tensors, hyper-parameters and other entries."""
    if config:
        others["hyper_parameters"] = {"config": config}
    torch.save({"state_dict": state, **others}, path)
    return authors.read(path)


def managed(bridge, task="vqa", **kwargs):
    return official.state_dict(task, bridges=False, managers=bridge, **kwargs)


def converted_back(checkpoint, backbone, heads):
    """All tensors of the file, made from the model."""
    return to_tensors(
        authors.rules(checkpoint.architecture, checkpoint.heads),
        variables_by_path(backbone, heads, encoder=backbone.image_encoder),
        backbone.extra,
    )


def assert_same_tensors(found, state):
    """Equal to the bit, half precision widened."""
    assert found.keys() == state.keys()
    for name, tensor in state.items():
        tensor = tensor.float() if tensor.is_floating_point() else tensor
        np.testing.assert_array_equal(found[name], tensor.numpy(), name)


def transformers_model(state, **kwargs):
    """Their model with these tensors, its cross-modal epsilon set apart."""
    model = peer.peer(peer.SMALL).bridgetower
    model.load_state_dict(official.as_transformers(state), **kwargs)
    by_hand.set_cross_modal_epsilon(model, authors.LAYER_NORM_EPSILON)
    return model


def linear(state, key, x):
    w, b = (state[f"{key}.{part}"].numpy() for part in ("weight", "bias"))
    return x @ w.T.astype("float64") + b


def numpy_head(state, key, x):
    """The authors' classifier in closed form."""
    parts = [f"{i}.{part}" for i in (0, 1, 3) for part in ("weight", "bias")]
    weights = [state[f"{key}.{part}"].numpy().T for part in parts]
    return classifier_head(x, weights)


@pytest.mark.parametrize("task", TASKS)
def test_every_task_loads_and_agrees(task, path):
    state = official.save(path, task)
    checkpoint = authors.read(path)
    assert tuple(checkpoint.heads) == TASKS[task]
    mode = "crop" if task == "pretrain" else "squash"
    assert checkpoint.processors[1].mode == mode
    backbone, heads = checkpoint.build()
    mine, theirs = peer.inputs(peer.SMALL)
    out = {k: array(v) for k, v in backbone(mine, training=False).items()}
    model = transformers_model(state)
    with torch.no_grad():
        expected = model(**theirs).pooler_output.numpy()
    assert difference(out["pooled"], expected) <= 1e-5
    pooled = expected.astype("float64")
    pair = np.concatenate([pooled, pooled[::-1]], axis=-1)
    for name, key, function, x in (
        ("vqa", "vqa_classifier", numpy_head, pooled),
        ("entailment", "snli_classifier", numpy_head, pooled),
        ("nlvr2", "nlvr2_classifier", numpy_head, pair),
        ("itm", "itm_score.fc", linear, pooled),
        ("rank", "rank_output", linear, pooled),
    ):
        if name in heads:
            got = array(heads[name](x.astype("float32")))
            assert difference(got, function(state, key, x)) <= 1e-5
    if "nlvr2" in heads:
        third = state["token_type_embeddings.weight"][2].numpy()
        assert difference(backbone.fusion.type_embedding[2], third) == 0
    if "itc" in heads:
        check_itc(state, backbone, heads["itc"], mine, model, theirs)


def check_itc(state, backbone, head, mine, model, theirs):
    with torch.no_grad():
        states = model(**theirs, output_hidden_states=True).hidden_states
        image = model.vision_model.visual.forward_post(states[1][-1])
    got = checkpoints.contrast(backbone, head, mine, None)
    for row, side, x in zip(
        got, ("text", "image"), (states[0][-1], image), strict=True
    ):
        x = linear(state, f"itc_{side}_head.fc", x[:, 0].numpy())
        expected = x / np.linalg.norm(x, axis=-1, keepdims=True)
        assert difference(row, expected) <= 1e-5
    assert array(head.logit_scale) == pytest.approx(-np.log(0.07), rel=1e-6)


def test_meter(path):
    state = official.save(path, "meter", image_layers=3, bridges=False)
    backbone, heads = authors.read(path).build()
    assert backbone.fusion.bridge is None and set(heads) == {"itm", "mlm"}
    assert backbone.fusion.taps == (-1, None, None)
    assert backbone.image_encoder.num_layers == 3
    mine, theirs = peer.inputs(peer.SMALL)
    out = backbone(mine, training=False)
    assert difference(array(out["pooled"]), two_towers(state, theirs)) <= 1e-5


def two_towers(state, inputs):
    """METER's forward pass, put together from transformers' layers."""
    model = transformers_model(state, strict=False)
    visual = model.vision_model.visual
    visual.transformer.resblocks = visual.transformer.resblocks[:3]
    mask = inputs["attention_mask"]
    bias = (1.0 - mask[:, None, None, :]) * torch.finfo(torch.float32).min
    types = model.token_type_embeddings.weight
    with torch.no_grad():
        text = model.text_model(
            inputs["input_ids"], attention_mask=mask
        ).last_hidden_state
        text = model.cross_modal_text_transform(text) + types[0]
        image = visual(inputs["pixel_values"], None)[-1]
        image = model.cross_modal_image_transform(image) + types[1]
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


def test_norms_per_tap_are_loaded(path):
    state = official.state_dict("pretrain")
    key = "vit_model.visual.ln_separate"
    for i in range(official.LAYERS):
        for kind in ("weight", "bias"):
            state[f"{key}.{i}.{kind}"] = torch.full([official.WIDTH], i + 0.5)
    checkpoint = saved(path, state)
    backbone, _ = checkpoint.build()
    assert backbone.image_norms == "per_tap"
    norms = {w.path: array(w) for w in backbone.weights if "tap_" in w.path}
    assert len(norms) == 6
    for index, block in enumerate((1, 2, 3)):
        expected = state[f"{key}.{block}.weight"].numpy()
        assert difference(norms[f"tap_{index}_norm/gamma"], expected) == 0
    assert f"{key}.0.bias" in checkpoint.unread


@slow_on("jax")
@pytest.mark.parametrize(
    "name", ["pretrain", "vqa", "manager/manager_pretrain"]
)
def test_outputs_equal_the_authors(name):
    path = SHARED / f"{name}.ckpt"
    if not path.is_file():
        pytest.skip(f"the authors' outputs are not here: {SHARED}")
    managed = "manager" in name
    expected = dict(np.load(path.with_suffix(".npz")))
    inputs = np.load(path.with_name("inputs.npz"))
    backbone, heads = authors.read(path).build()
    features = {
        "images": inputs["image"],
        "token_ids": inputs["ids"].astype("int32"),
        "padding_mask": inputs["mask"].astype("int32"),
    }
    out = backbone(features, training=False)
    found = {"cls_feats": out["pooled"], "text_feats": out["text"]}
    found["image_feats"] = out["image"]
    for head in heads:
        x = out["text" if head == "mlm" else "pooled"]
        found[f"{head}_logits" if managed else head] = heads[head](x)
    # Those of managers are compared at padding, too.
    kept = (inputs["mask"] == 1) | managed
    for key, x in found.items():
        rows = kept if key.startswith(("text", "mlm")) else slice(None)
        largest = difference(array(x)[rows], expected[key][rows])
        assert largest <= (2e-5 if managed else 1e-4), key
    if managed:
        assert backbone.fusion.bridge == "adaptive_manager"
        encoders = backbone.text_encoder, backbone.image_encoder
        assert [x.num_layers for x in encoders] == [7, 8]


def test_head_widths_come_from_the_shapes(path):
    # The authors' scale 1.5: a head of 3D, D = 64.
    width, key = 192, "nlvr2_classifier"
    state = official.state_dict("nlvr2")
    for name in ("0.weight", "0.bias", "1.weight", "1.bias"):
        state[f"{key}.{name}"] = state[f"{key}.{name}"][:width]
    state[f"{key}.3.weight"] = state[f"{key}.3.weight"][:, :width]
    _, heads = saved(path, state).build()
    columns = state[f"{key}.0.weight"].shape[1]
    x = np.random.default_rng(0).normal(size=(2, columns))
    got = array(heads["nlvr2"](x.astype("float32")))
    assert difference(got, numpy_head(state, key, x)) <= 1e-5


def test_authors_checkpoint_exports_to_transformers(path, tmp_path):
    state = official.save(path, "vqa")
    backbone, _ = authors.read(path).build()
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


class Callback:
    """A class that Lightning pickles and that cannot be imported here."""


def test_code_in_checkpoints_is_rejected_and_not_run(
    path, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    state = official.state_dict("vqa")
    for file in (
        {"state_dict": state | {"odd": Malicious()}},
        {"state_dict": state, "hyper_parameters": Malicious()},
        state | {"odd": Malicious()},
        Malicious(),
    ):
        torch.save(file, path)
        with pytest.raises(ConversionError, match="the code of|plain values"):
            authors.read(path)
    path.write_bytes(pickle.dumps(Malicious()))
    with pytest.raises(ConversionError, match="model.ckpt"):
        authors.read(path)
    # Beside the state dict they are skipped.
    callbacks = {Callback: {"best": np.float32(1)}, "more": Callback()}
    assert saved(path, state, callbacks=callbacks, more=Malicious()).heads
    assert [p.name for p in tmp_path.iterdir()] == ["model.ckpt"]


ITC = "itc_text_head.fc.weight"
WIDE = "text_transformer.encoder.layer.0.intermediate.dense.weight"


def manager(side, number):
    return f"cross_modal_{side}_manager_tower.{number}.manager_layer"


QUERY = f"{manager('image', 1)}.fusion_attention.q_proj.weight"
SCORES = f"{manager('text', 0)}.layer_scores"


def missing(name):
    return lambda state: state.pop(name), f"{name} is missing"


def shaped(name, *shape):
    return lambda state: state.update({name: torch.zeros(shape)})


RETRIEVAL = functools.partial(official.state_dict, "retrieval")
MANAGED = functools.partial(managed, "adaptive_manager")
# Changes of a state dict, and what the error names.
BAD = [
    (lambda s: s.update(name="text"), "name: str"),
    (lambda s: s.update(temperature=torch.tensor(-1.0)), "positive"),
    (lambda s: s.pop("vit_model.visual.conv1.weight"), "another model"),
    (lambda s: s.clear(), "must hold dense tensors"),
    (shaped(ITC, 0, 64), f"{ITC} has no place"),
    (shaped(WIDE, 10**5, 1), "has room for"),
    # Too large for the variable, alone or added to another.
    (lambda s: s.update({ITC: s[ITC].double() * 1e300}), f"finite.*{ITC}"),
    (lambda s: [s[n].fill_(3e38) for n in (FOLDED, ROWS)], f"finite.*{ROWS}"),
]
BAD_MANAGERS = [
    missing(f"{manager('text', 1)}.layer_scores_cross"),
    missing("layer_embeddings_image.weight"),
    (shaped("layer_embeddings_text.weight", 3, 64), r"not \(4, 64\)"),
    (shaped(SCORES, 1, 5, 1, 64), "1 to 4.*layer_scores"),
    (shaped(SCORES, 3, 64), "layer_scores.*with 4 axes"),
    (shaped(QUERY, 64, 32), f"{QUERY} has shape"),
]


@FASTEST
@pytest.mark.parametrize(
    "make, change, found",
    [(RETRIEVAL, *case) for case in BAD]
    + [(MANAGED, *case) for case in BAD_MANAGERS],
)
def test_bad_state_dicts(make, change, found, path):
    state = make()
    change(state)
    with pytest.raises(ConversionError, match=found):
        saved(path, state).build()


@pytest.mark.parametrize(
    "config, shown",
    [
        ({"num_heads": "4"}, "must fit together"),
        ({"drop_rate": "\x1b[2J" * 1000}, r"`dropout`.*'\\x1b\[2J"),
        ({"drop_rate": float("nan")}, "`dropout`"),
        ({"drop_rate": [[[1]]]}, "`dropout`.*'list'"),
    ],
    ids=lambda value: str(value)[:30],
)
def test_bad_hyper_parameters(config, shown, path):
    with pytest.raises(ConversionError, match=shown) as error:
        saved(path, RETRIEVAL(), config).build()
    assert len(str(error.value)) < 900 and str(error.value).isprintable()


@pytest.mark.parametrize(
    "make, key, size",
    [
        (RETRIEVAL, "vocab_size", official.ROWS),
        (MANAGED, "managed_layers_text", official.FUSED),
    ],
)
def test_sizes_that_contradict_tensors_are_rejected(make, key, size, path):
    assert saved(path, make(), {key: size})
    for value in (size * 2, str(size)):
        with pytest.raises(ConversionError, match=f"{key}=.*in its tensors"):
            saved(path, make(), {key: value})


def test_half_precision_is_added_in_float32(path):
    state = official.state_dict("vqa")
    state[ROWS], state[FOLDED] = state[ROWS].half(), state[FOLDED].half()
    state[ROWS][5, 0] = state[FOLDED][0, 0] = 60000.0
    backbone, _ = saved(path, state).build()
    (table,) = (
        array(w)
        for w in backbone.weights
        if "position_embedding" in w.path
        and array(w).shape == (64, official.WIDTH)
    )
    expected = state[ROWS].float()[2:] + state[FOLDED].float()
    np.testing.assert_array_equal(table, expected.numpy())


def test_names_may_be_left_by_pattern(path):
    state = official.state_dict("pretrain") | {"queue.ids": torch.ones(3)}
    with pytest.raises(ConversionError, match="queue.ids has no place"):
        saved(path, state)
    assert "queue.ids" in authors.read(path, ignore=(r"queue\..*",)).unread


@FASTEST
@pytest.mark.parametrize(
    "bridge, image_layers", zip(MANAGERS, [3, 5], strict=True)
)
def test_tensors_come_back(bridge, image_layers, path):
    state = managed(bridge, image_layers=image_layers)
    checkpoint = saved(path, state)
    backbone, heads = checkpoint.build()
    assert backbone.fusion.bridge == bridge
    assert backbone.fusion.taps == (-3, -2, -1)
    assert isinstance(backbone.text_encoder, PaddedRobertaBackbone)
    assert_same_tensors(converted_back(checkpoint, backbone, heads), state)


@FASTEST
def test_padding_has_a_position_of_its_own(path):
    backbone, _ = saved(path, managed("adaptive_manager")).build()
    ids = np.array([[0, 5, 2, 1, 1]], "int32")
    mask = np.array([[1, 1, 1, 0, 0]], "int32")
    x = backbone.text_tower({"token_ids": ids, "padding_mask": mask})[0]
    assert difference(x[:, 3], x[:, 4]) == 0


@FASTEST
def test_heads_of_retrieval_have_other_names(path):
    state = managed("adaptive_manager", "retrieval")
    for name in [name for name in state if name.startswith("itc_")]:
        state[f"cross_modal_{name}"] = state.pop(name)
    for name in ("rank_output.weight", "rank_output.bias"):
        del state[name]
    checkpoint = saved(path, state)
    backbone, heads = checkpoint.build()
    assert set(heads) == {"itm", "itc"}
    assert checkpoint.processors[1].mode == "squash"
    back = converted_back(checkpoint, backbone, heads)
    # It is stored as the logarithm of its reciprocal.
    name = "temperature"
    assert difference(back.pop(name), state.pop(name).numpy()) <= 1e-6
    assert_same_tensors(back, state)


@FASTEST
@pytest.mark.filterwarnings("ignore:BridgeTowerVQA takes features only")
def test_answers_are_saved_in_the_preset(tmp_path, home, run):
    source = tmp_path / "vqa.ckpt"
    official.save(source, "vqa")
    answers = [f"answer {i}" for i in range(official.ANSWERS)]
    file = tmp_path / "answers.json"
    file.write_text(json.dumps({a: i for i, a in enumerate(answers)}))
    convert = ("convert", source)
    run(*convert, tmp_path / "preset", "--answers", file)
    with pytest.warns(UserWarning, match="no tokenizer files"):
        opened = kbt.BridgeTowerVQA.from_preset(source, answers=answers)
    task = kbt.BridgeTowerVQA.from_preset(tmp_path / "preset")
    assert task.answers == opened.answers == answers
    file.write_text(json.dumps(answers[:-1]))
    said = run(*convert, tmp_path / "other", "--answers", file, code=1)
    assert "6 answers, 7 classes" in said.err
    said = run(*convert, tmp_path / "other", "--task", "itm", code=1)
    assert "has vqa. Received: --task itm" in said.err
    assert not (tmp_path / "other").exists()


@FASTEST
def test_forms_of_answer_files(tmp_path):
    (tmp_path / "a.txt").write_text("yes\nno\n")
    assert by_hand.read_answers(tmp_path / "a.txt") == ["yes", "no"]
    (tmp_path / "a.json").write_text('["no", "yes"]')
    assert by_hand.read_answers(tmp_path / "a.json") == ["no", "yes"]
    rows = [{"multiple_choice_answer": "Two."}] * 9
    for name in ("train", "val"):
        (tmp_path / f"{name}.json").write_text(
            json.dumps({"annotations": rows})
        )
    paths = [tmp_path / "train.json", tmp_path / "val.json"]
    assert by_hand.read_answers(*paths) == ["2"]
    (tmp_path / "a.json").write_text('{"yes": 3}')
    with pytest.raises(ConversionError, match="must be a list of strings"):
        by_hand.read_answers(tmp_path / "a.json")
