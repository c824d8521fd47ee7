"""`from_preset` and constructors take their keywords, and no other."""

import every_task
import pytest
from builders import FASTEST
from builders import long_but
from builders import shallow

import keras_bridgetower as kbt
from keras_bridgetower.presets import registry

pytestmark = FASTEST
TINY = "bridgetower_tiny_easy_vqa"
# With the labels that some need.
TASKS = {
    case.task: {k: v for k, v in case.to_preprocess.items() if k == "labels"}
    for case in every_task.TASKS.values()
}


@pytest.fixture(scope="module")
def preset():
    """Opened once for all of them."""
    return registry.open_preset(TINY)


# Of both towers, and of each alone.
SOME = (kbt.BridgeTowerVQA, kbt.BridgeTowerImageClassifier)
SOME += (kbt.BridgeTowerTextClassifier,)


@pytest.mark.parametrize(
    "task", long_but(TASKS, *SOME), ids=lambda task: task.__name__
)
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


def test_constructors_reject_unknown_arguments():
    backbone = shallow()
    needed = {
        kbt.BridgeTowerVQA: {"answers": ["a"]},
        kbt.BridgeTowerRetrieval: {"objective": "random_negatives"},
    }
    for task, values in (TASKS | needed).items():
        for name in ("name_", "dtype"):
            with pytest.raises(TypeError, match=f"Received: {name}=3"):
                task(backbone, **values, **{name: 3})
    with pytest.raises(TypeError, match="num_layers, .*Received: num_layer=2"):
        kbt.BridgeTowerBackbone.from_config(
            backbone.get_config() | {"num_layer": 2}
        )


def test_values_for_a_given_preprocessor_are_rejected(preset):
    own = kbt.BridgeTowerVQAPreprocessor.from_preset(preset)
    for values in ({"sequence_length": 9}, {"image_mode": "crop"}):
        with pytest.raises(ValueError, match="where `preprocessor` is passed"):
            kbt.BridgeTowerVQA.from_preset(preset, preprocessor=own, **values)
    with pytest.raises(ValueError, match="`tokenizer` that you pass"):
        kbt.BridgeTowerVQAPreprocessor.from_preset(
            preset, tokenizer=own.tokenizer, sequence_length=9
        )


@pytest.mark.parametrize(
    "cls, values",
    [
        (kbt.BridgeTowerBackbone, {"dropout": "x"}),
        (kbt.BridgeTowerTokenizer, {"sequence_length": 0}),
        (kbt.BridgeTowerImageConverter, {"mode": "x"}),
        (kbt.BridgeTowerPretrainingPreprocessor, {"objectives": "x"}),
        (kbt.BridgeTowerVQA, {"answers": ["a", "a"]}),
        (kbt.BridgeTowerImageClassifier, {"labels": ["a", "a"]}),
    ],
)
def test_wrong_keyword_values_are_named(cls, values, preset):
    """Without a word of the preset's files, which are right."""
    (name,) = values
    with pytest.raises(ValueError, match=f"^`{name}` must be"):
        cls.from_preset(preset, **values)
