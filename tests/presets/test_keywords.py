"""`from_preset` and constructors take their keywords, and no other."""

import shutil

import copies
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

pytestmark = FASTEST
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


@pytest.mark.parametrize("task", TASKS, ids=lambda task: task.__name__)
def test_every_task_takes_the_same_values(task, preset):
    values = {"image_size": 32, "dtype": "bfloat16", **TASKS[task]}
    parts = task.preprocessor_cls
    idle = {}
    for cls, value in (
        (parts.image_converter_cls, {"image_mode": "crop"}),
        (parts.tokenizer_cls, {"sequence_length": 9}),
    ):
        (idle if cls is None else values).update(value)
    model = task.from_preset(preset, load_weights=False, **values)
    assert model.backbone.image_size == 32
    assert model.backbone.dtype_policy.name == "bfloat16"
    if "image_mode" in values:
        converter = model.preprocessor.image_converter
        assert (converter.image_size, converter.mode) == (32, "crop")
    if "sequence_length" in values:
        assert model.preprocessor.tokenizer.sequence_length == 9
    if idle:
        with pytest.raises(ValueError, match="must be left out"):
            task.from_preset(preset, False, **TASKS[task], **idle)
    allowed = "dtype, .*image_mode, image_size, .*revision, sequence_length"
    for name in ("nonsense", "heads"):
        with pytest.raises(TypeError, match=f"{allowed}.*{name}=3"):
            task.from_preset(preset, **TASKS[task], **{name: 3})
    with pytest.raises(ValueError, match="`revision` can only be used"):
        task.from_preset(TINY, revision="main", **TASKS[task])


def test_constructors_reject_unknown_arguments():
    backbone = shallow()
    made = kbt.BridgeTowerVQA(backbone, answers=["a", "b"], trainable=False)
    assert not made.trainable
    needed = {
        kbt.BridgeTowerVQA: {"answers": ["a"]},
        kbt.BridgeTowerRetrieval: {"objective": "random_negatives"},
    }
    for task, values in (TASKS | needed).items():
        for name, found in (
            ("name_", rf"`{task.__name__}` .*name, .*Received: name_=3"),
            ("dtype", "Received: dtype=3"),
        ):
            with pytest.raises(TypeError, match=found):
                task(backbone, **values, **{name: 3})
    with pytest.raises(TypeError, match="num_layers, .*Received: num_layer=2"):
        kbt.BridgeTowerBackbone.from_config(
            backbone.get_config() | {"num_layer": 2}
        )


PARTS = [
    kbt.BridgeTowerBackbone,
    kbt.BridgeTowerTokenizer,
    kbt.BridgeTowerImageConverter,
    kbt.BridgeTowerVQAPreprocessor,
]


def test_parts_accept_only_their_own_keywords(preset):
    _, tokenizer, converter, preprocessor = (cls.from_preset for cls in PARTS)
    made = tokenizer(preset, sequence_length=7)
    assert made(["is it red?"]).shape == (1, 7)
    made = converter(preset, image_size=24, mode="crop")
    assert made(np.zeros((30, 40, 3), "uint8")).shape == (24, 24, 3)
    made = preprocessor(
        preset, image_size=24, image_mode="crop", sequence_length=7
    )
    assert made.image_converter.mode == "crop"
    assert made.tokenizer.sequence_length == 7
    for part in PARTS:
        with pytest.raises(TypeError, match="revision.*nonsense=3"):
            part.from_preset(preset, nonsense=3)
    for values in ({"vocabulary": {}}, {"config_file": "a"}):
        with pytest.raises(TypeError, match="takes the keywords"):
            tokenizer(preset, **values)


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


def test_a_revision_reaches_the_hub(preset, monkeypatch):
    asked = []
    monkeypatch.setitem(
        hub.DOWNLOADS, "hf", lambda h: asked.append(h) or str(preset.root)
    )
    kbt.BridgeTowerTokenizer.from_preset("hf://someone/model", revision="v1")
    kbt.BridgeTowerTokenizer.from_preset("bridgetower_base", revision="v2")
    assert asked == ["someone/model@v1", "BridgeTower/bridgetower-base@v2"]


def test_truncated_texts_warn_once():
    made = tokenizer(sequence_length=6)
    with pytest.warns(UserWarning, match="1 of 2 texts cut.*`sequence_length`"):
        made(["a", "much too long"])
    # Warnings are errors here.
    made(["much too long", "a"])
    made.encode_pairs(["much"], ["too long"])


# By the backbone, the tokenizer, the image converter and the tasks: the class,
# its values, and what is said of the first.
REFUSED = [
    (kbt.BridgeTowerBackbone, {"dropout": "x"}, "must be a number from 0"),
    (kbt.BridgeTowerVQA, {"dtype": "float33"}, "float33"),
    (kbt.BridgeTowerTokenizer, {"sequence_length": 2}, "of at least 3"),
    (kbt.BridgeTowerImageConverter, {"mode": "x"}, "'squash'"),
    # One is wrong, and the other is needed.
    (
        kbt.BridgeTowerMaskedLMPreprocessor,
        {"rate": 15, "max_masks": 4},
        "from 0 to 1",
    ),
]


@pytest.mark.parametrize("cls, values, told", REFUSED)
def test_wrong_keyword_values_are_value_errors(cls, values, told, preset):
    name = next(iter(values))
    with pytest.raises(ValueError, match=told) as error:
        cls.from_preset(preset, **values)
    said = str(error.value)
    assert said.endswith(f". Omit `{name}` to use the preset's own.")
    assert not isinstance(error.value, PresetError)


def test_wrong_head_dropout_is_named(preset):
    make = kbt.BridgeTowerTextClassifier.from_preset
    with pytest.raises(ValueError, match="^`dropout` must be a number from 0"):
        make(preset, False, labels=["a", "b"], dropout="x")


def test_wrong_file_values_are_preset_errors(preset, tmp_path):
    folder = shutil.copytree(preset.root, tmp_path / "copy")
    copies.update(folder / "tokenizer.json", "config", sequence_length=2)
    manifest.write(folder)
    make = kbt.BridgeTowerTokenizer.from_preset
    assert make(folder, sequence_length=7).sequence_length == 7
    for values in ({}, {"sequence_length": 1}):
        with pytest.raises(PresetError, match="tokenizer.json has values"):
            make(folder, **values)
