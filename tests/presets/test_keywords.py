"""`from_preset` and constructors take their keywords, and no other."""

import json
import re
import shutil

import numpy as np
import pytest
from builders import FASTEST
from builders import shallow
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.presets import hub
from keras_bridgetower.presets import manifest
from keras_bridgetower.presets import registry
from keras_bridgetower.presets.errors import PresetError

TINY = "bridgetower_tiny_easy_vqa"
LABELS = {"labels": ["a", "b"]}
TASKS = {
    kbt.BridgeTowerVQA: {},
    kbt.BridgeTowerMaskedLM: {},
    kbt.BridgeTowerRetrieval: {},
    kbt.BridgeTowerContrastive: {},
    kbt.BridgeTowerEntailment: {},
    kbt.BridgeTowerNLVR2: {},
    kbt.BridgeTowerPretraining: {},
    kbt.BridgeTowerImageClassifier: LABELS,
    kbt.BridgeTowerTextClassifier: LABELS,
    kbt.BridgeTowerTextRegressor: {},
}


@pytest.fixture(scope="module")
def preset():
    """Opened once for all of them."""
    return registry.open_preset(TINY)


@FASTEST
@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_every_task_takes_the_same_values(task, preset):
    values = {"image_size": 32, "dtype": "bfloat16", **TASKS[task]}
    reads_pictures = task.preprocessor_cls.image_converter_cls is not None
    reads_texts = task.preprocessor_cls.tokenizer_cls is not None
    if reads_pictures:
        values["image_mode"] = "crop"
    if reads_texts:
        values["sequence_length"] = 9
    model = task.from_preset(preset, load_weights=False, **values)
    assert model.backbone.image_size == 32
    assert model.backbone.dtype_policy.name == "bfloat16"
    if reads_pictures:
        converter = model.preprocessor.image_converter
        assert (converter.image_size, converter.mode) == (32, "crop")
    if reads_texts:
        assert model.preprocessor.tokenizer.sequence_length == 9
    if not (reads_pictures and reads_texts):
        idle = (
            {"sequence_length": 9} if reads_pictures else {"image_mode": "hf"}
        )
        with pytest.raises(ValueError, match="must be left out"):
            task.from_preset(preset, False, **TASKS[task], **idle)
    allowed = "dtype, .*image_mode, image_size, .*revision, sequence_length"
    for name in ("nonsense", "heads"):
        with pytest.raises(TypeError, match=f"{allowed}.*{name}=3"):
            task.from_preset(preset, **TASKS[task], **{name: 3})
    with pytest.raises(ValueError, match="`revision` can only be used"):
        task.from_preset(TINY, revision="main", **TASKS[task])


@FASTEST
def test_constructors_reject_unknown_arguments():
    backbone = shallow()
    made = kbt.BridgeTowerVQA(backbone, answers=["a", "b"], trainable=False)
    assert not made.trainable
    for task, values in {
        **TASKS,
        kbt.BridgeTowerVQA: {"answers": ["a"]},
    }.items():
        if task is kbt.BridgeTowerRetrieval:
            values = {"objective": "random_negatives"}
        with pytest.raises(
            TypeError, match=rf"`{task.__name__}` .*name, .*Received: name_=3"
        ):
            task(backbone, **values, name_=3)
        with pytest.raises(TypeError, match="Received: dtype='bfloat16'"):
            task(backbone, **values, dtype="bfloat16")
    with pytest.raises(TypeError, match="num_layers, .*Received: num_layer=2"):
        kbt.BridgeTowerBackbone.from_config(
            backbone.get_config() | {"num_layer": 2}
        )


@FASTEST
def test_parts_accept_only_their_own_keywords(preset):
    made = kbt.BridgeTowerTokenizer.from_preset(preset, sequence_length=7)
    assert made(["is it red?"]).shape == (1, 7)
    made = kbt.BridgeTowerImageConverter.from_preset(
        preset, image_size=24, mode="crop"
    )
    assert made(np.zeros((30, 40, 3), "uint8")).shape == (24, 24, 3)
    made = kbt.BridgeTowerVQAPreprocessor.from_preset(
        preset, image_size=24, image_mode="crop", sequence_length=7
    )
    assert (made.image_converter.mode, made.tokenizer.sequence_length) == (
        "crop",
        7,
    )
    for part in (
        kbt.BridgeTowerBackbone,
        kbt.BridgeTowerTokenizer,
        kbt.BridgeTowerImageConverter,
        kbt.BridgeTowerVQAPreprocessor,
    ):
        with pytest.raises(TypeError, match="revision.*nonsense=3"):
            part.from_preset(preset, nonsense=3)
    for values in ({"vocabulary": {}}, {"config_file": "a"}):
        with pytest.raises(TypeError, match="takes the keywords"):
            kbt.BridgeTowerTokenizer.from_preset(preset, **values)


@FASTEST
def test_values_for_a_given_preprocessor_are_rejected(preset):
    own = kbt.BridgeTowerVQAPreprocessor.from_preset(preset)
    for values in ({"sequence_length": 9}, {"image_mode": "crop"}):
        with pytest.raises(ValueError, match="where `preprocessor` is passed"):
            kbt.BridgeTowerVQA.from_preset(preset, preprocessor=own, **values)
    with pytest.raises(ValueError, match="`tokenizer` that you pass"):
        kbt.BridgeTowerVQAPreprocessor.from_preset(
            preset, tokenizer=own.tokenizer, sequence_length=9
        )
    with pytest.raises(ValueError, match="32 positions.*sequence_length=64"):
        kbt.BridgeTowerVQA.from_preset(preset, False, sequence_length=64)


@FASTEST
def test_a_revision_reaches_the_hub(preset, monkeypatch):
    asked = []

    def download(handle):
        asked.append(handle)
        return str(preset.root)

    monkeypatch.setitem(hub.DOWNLOADS, "hf", download)
    kbt.BridgeTowerTokenizer.from_preset("hf://someone/model", revision="v1")
    kbt.BridgeTowerTokenizer.from_preset("bridgetower_base", revision="v2")
    assert asked == ["someone/model@v1", "BridgeTower/bridgetower-base@v2"]


@FASTEST
def test_truncated_texts_warn_once():
    made = tokenizer(sequence_length=6)
    with pytest.warns(UserWarning, match="1 of 2 texts cut.*`sequence_length`"):
        made(["a", "much too long"])
    # Warnings are errors here.
    made(["much too long", "a"])
    made.encode_pairs(["much"], ["too long"])


REFUSED = {
    # By the backbone, the tokenizer, the image converter and the tasks.
    "dropout": (
        lambda p: kbt.BridgeTowerBackbone.from_preset(p, False, dropout="x"),
        "`dropout` must be a number from 0 to below 1. Received: dropout='x'",
    ),
    "dtype": (
        lambda p: kbt.BridgeTowerVQA.from_preset(p, False, dtype="float33"),
        ".*float33",
    ),
    "sequence_length": (
        lambda p: kbt.BridgeTowerTokenizer.from_preset(p, sequence_length=2),
        "`sequence_length` must be an integer of at least 3",
    ),
    "mode": (
        lambda p: kbt.BridgeTowerVQA.from_preset(p, False, image_mode="x"),
        r"`mode` must be one of \['squash'",
    ),
    # One is wrong, and the other is needed.
    "rate": (
        lambda p: kbt.BridgeTowerMaskedLMPreprocessor.from_preset(
            p, rate=15, max_masks=4
        ),
        "`rate`, .* must be from 0 to 1",
    ),
}


@FASTEST
@pytest.mark.parametrize("name", REFUSED)
def test_wrong_keyword_values_are_value_errors(name, preset):
    make, told = REFUSED[name]
    with pytest.raises(ValueError) as error:
        make(preset)
    said = str(error.value)
    assert re.match(told, said)
    assert said.endswith(f". Omit `{name}` to use the preset's own.")
    assert not isinstance(error.value, PresetError)


@FASTEST
def test_wrong_head_dropout_is_named(preset):
    make = kbt.BridgeTowerTextClassifier.from_preset
    with pytest.raises(ValueError, match="^`dropout` must be a number from 0"):
        make(preset, False, labels=["a", "b"], dropout="x")


@FASTEST
def test_wrong_file_values_are_preset_errors(preset, tmp_path):
    shutil.copytree(preset.root, tmp_path / "copy")
    path = tmp_path / "copy" / "tokenizer.json"
    held = json.loads(path.read_text())
    held["config"]["sequence_length"] = 2
    path.write_text(json.dumps(held))
    manifest.write(tmp_path / "copy")
    make = kbt.BridgeTowerTokenizer.from_preset
    assert make(tmp_path / "copy", sequence_length=7).sequence_length == 7
    for values in ({}, {"sequence_length": 1}):
        with pytest.raises(PresetError, match="tokenizer.json has values"):
            make(tmp_path / "copy", **values)
