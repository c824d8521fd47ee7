"""Every encoder of the registry in tasks, from folders as they are published.

Each time a few pairs hold all encoders once. The long version has each image
encoder beside RoBERTa and each text encoder beside CLIP:

    KERAS_BACKEND=torch pytest -m slow tests/encoders/test_every_encoder.py
"""

import functools
import itertools

import exported_files
import keras
import numpy as np
import pytest
import whole_folders
from builders import ANSWERS
from builders import LONG_ELSEWHERE
from builders import array
from builders import assert_same_weights
from builders import difference
from builders import eager
from builders import long_but
from builders import moved
from builders import randomise
from builders import raw
from builders import run

import keras_bridgetower as kbt
from keras_bridgetower import analysis
from keras_bridgetower.encoders import registry
from keras_bridgetower.models.checks import TOKEN_FEATURES
from keras_bridgetower.models.exporting.exported import FORMATS

pytestmark = LONG_ELSEWHERE

KINDS = {"image": whole_folders.IMAGES, "text": whole_folders.TEXTS}
USUAL = ("clip_vision_model", "roberta")
SIZES = dict(hidden_dim=16, num_heads=2, num_layers=1, dropout=0.0)


def types(entry):
    return [kind for files in entry.files for kind in files.types]


def entry_of(side, kind):
    entries = registry.entries(side).values()
    return next(entry for entry in entries if kind in types(entry))


def is_pyramid(image):
    return image.startswith(whole_folders.PYRAMIDS)


def one_of_each(side):
    """The first model type in `KINDS` of each encoder."""
    firsts = {}
    for kind in KINDS[side]:
        firsts.setdefault(id(entry_of(side, kind)), kind)
    return firsts.values()


def few_pairs():
    """Pairs of model types that hold all encoders once, and a classifier."""
    image, text = USUAL
    both = itertools.zip_longest(one_of_each("image"), one_of_each("text"))
    pairs = {(i or image, t or text) for i, t in both}
    return pairs | {("resnet classes", text)}


ALONE = {(image, USUAL[1]) for image in KINDS["image"]}
ALONE |= {(USUAL[0], text) for text in KINDS["text"]}
FEW = few_pairs()
EVERY = pytest.mark.parametrize(
    "pair", long_but(sorted(FEW | ALONE), *FEW), ids="-".join
)
# A block that is called twice, attention of its own, and texts of one length.
QUICK = [
    ("dinov2_with_registers", "albert"),
    ("dinov3_vit", "deberta-v2"),
    ("swin", "siglip"),
]
SOME = pytest.mark.parametrize(
    "pair", long_but(sorted(FEW), *QUICK), ids="-".join
)
# DINOv3 has other names of its projections.
PROJECTIONS = {"query", "value", "q_proj", "v_proj"}


@pytest.mark.parametrize("side", KINDS)
def test_every_entry_has_a_folder(side):
    for cls, entry in registry.entries(side).items():
        # Tests register encoders without files.
        known = {*types(entry)}
        assert not known or known & {*KINDS[side]}, cls


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A function from a side and a model type to its folder."""
    root = tmp_path_factory.mktemp("encoders")

    @functools.cache
    def written(side, kind):
        write = getattr(whole_folders, f"write_{side}")
        return write(root / f"{side}-{kind}", kind)

    return written


@pytest.fixture(scope="module")
def opened(folder):
    """A function from a pair to a new task."""

    def made(pair):
        image, text = pair
        # The files of ResNet tell no size.
        values = {"image_size": whole_folders.SIDE, "answers": ANSWERS, **SIZES}
        if is_pyramid(image):
            values["projections"] = "per_layer"
            values["with_classifier"] = image.endswith("classes")
        folders = folder("image", image), folder("text", text)
        return kbt.BridgeTowerVQA.from_encoders(*folders, **values)

    return made


@pytest.fixture(scope="module")
def trained(opened):
    """A function from a pair to a task after two steps."""

    @functools.cache
    def made(pair):
        task = eager(opened(pair), keras.optimizers.Adam(0.01))
        x, y = raw(4)
        fitted = task.fit(x, y, batch_size=4, epochs=2, verbose=0)
        first, second = fitted.history["loss"]
        assert second < 0.98 * first
        return task

    return made


def features_of(task, rows=3):
    x = task.preprocessor(raw(rows)[0])
    return {name: array(x[name]) for name in task.input}


@EVERY
def test_a_task_is_trained_and_saved(pair, trained, tmp_path):
    task = trained(pair)
    x, _ = raw(4)
    answers = task.answer(x["images"], x["text"])
    task.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerVQA.from_preset(tmp_path / "preset")
    found = copy.answer(x["images"], x["text"])
    for (one,), (wanted,) in zip(found, answers, strict=True):
        # XLA compiles each model anew.
        assert one == (wanted[0], pytest.approx(wanted[1], abs=1e-6))
    if pair in QUICK:
        half = kbt.BridgeTowerVQA.from_preset(
            tmp_path / "preset", dtype="mixed_bfloat16"
        )
        x = features_of(task)
        expected = run(task, x)
        most = 0.05 * np.abs(expected).max()
        assert 0 < difference(run(half, x), expected) <= most


@EVERY
def test_maps_have_one_value_for_each_patch(pair, trained):
    task = trained(pair)
    x, _ = raw(1)
    given = task, x["images"][0], x["text"][0]
    tower = task.backbone.image_tower
    states = run(tower, task.preprocessor(x)["images"])
    patches = states[-1].shape[1] - tower.prefix_tokens
    for seen in (
        analysis.attention_map(*given),
        analysis.attention_rollout(*given),
        analysis.relevance(*given, answer="red"),
    ):
        assert seen.whole.size == patches >= 16
        assert seen.whole.sum() == pytest.approx(1, abs=1e-5)


@SOME
def test_adapters_change_the_outputs(pair, opened):
    task = randomise(opened(pair), 0.05)
    model, x = task.backbone, features_of(task)
    before = run(model, x)
    model.enable_lora(2)
    trained = {id(w) for w in model.trainable_weights}
    for tower in (model.image_tower, model.text_tower):
        paths = [w.path for w in tower.weights if id(w) in trained]
        layers = {path.split("/")[-2] for path in paths}
        if tower.name == "text_tower" or not is_pyramid(pair[0]):
            assert len(layers) == 2 and layers <= PROJECTIONS, paths
    for weight in model.trainable_weights:
        weight.assign(array(weight) + 0.1)
    changed = run(model, x)
    assert difference(before["text"], changed["text"]) > 1e-3
    assert difference(before["image"], changed["image"]) > 1e-3


@SOME
@pytest.mark.filterwarnings("ignore:Layer .* does not have a `quantize`")
def test_frozen_towers_do_not_move_and_int8_is_saved(pair, opened, tmp_path):
    task = randomise(opened(pair), 0.05)
    body, x = task.backbone, features_of(task)
    towers = body.image_tower, body.text_tower
    for tower in towers:
        tower.trainable = False
    frozen = {w.path for tower in towers for w in tower.weights}
    changed = moved(task, lambda: eager(task).fit(*raw(), verbose=0))
    assert changed and not changed & frozen
    before = run(task, x)
    task.quantize("int8")
    with pytest.raises(ValueError, match="A copy of a tower alone needs"):
        body.text_tower.get_config()
    after = run(task, x)
    assert 0 < difference(before, after) <= 0.1 * np.abs(array(before)).max()
    task.save_to_preset(tmp_path / "preset")
    copy = kbt.BridgeTowerVQA.from_preset(tmp_path / "preset")
    assert difference(run(copy, x), after) == 0


@SOME
def test_recomputed_blocks_give_the_same_step(pair, opened):
    def stepped(prepare):
        keras.utils.set_random_seed(0)
        task = randomise(opened(pair))
        prepare(task.backbone)
        task.compile(keras.optimizers.SGD(0.1), run_eagerly=True)
        task.fit(*raw(), shuffle=False, verbose=0)
        return task

    plain = stepped(lambda model: None)
    made = stepped(lambda model: model.checkpoint_activations())
    assert_same_weights(plain, made, most=1e-6)
    tower = made.backbone.text_tower
    # ALBERT calls one block twice.
    assert len(tower.blocks) == (1 if pair[1] == "albert" else 2)


@EVERY
def test_embeddings_differ_for_every_text_and_picture(pair, trained):
    """Row 0 of a causal encoder would be the same for all texts."""
    backbone, made = trained(pair).backbone, trained(pair).preprocessor
    preprocessor = kbt.BridgeTowerContrastivePreprocessor(
        made.tokenizer, made.image_converter, features=made.features
    )
    task = kbt.BridgeTowerContrastive(backbone, preprocessor, 8)
    x, _ = raw(4)
    found = [task.embed(texts=x["text"])]
    # Means of its maps are nearly those of any noise.
    if pair[0] != "efficientnet":
        found.append(task.embed(list(x["images"])))
    for rows in found:
        apart = np.linalg.norm(rows[:, None] - rows, axis=-1)
        assert (apart + np.eye(4)).min() > 1e-3
    given = features_of(trained(pair))
    given["token_ids"][0, 1] = backbone.text_encoder.vocabulary_size
    with pytest.raises(ValueError, match="`token_ids` must hold integers"):
        trained(pair)(given)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.usefixtures("no_records_of_traces")
@pytest.mark.slow
@pytest.mark.parametrize("form", exported_files.WRITTEN)
@pytest.mark.parametrize("pair", sorted(FEW), ids="-".join)
def test_an_exported_task_gives_the_same(pair, form, trained, tmp_path):
    exported_files.need(form)
    entry = entry_of("text", pair[1])
    task = trained(pair)
    path = tmp_path / f"task{FORMATS[form].suffix}"
    if keras.config.backend() in entry.not_exported:
        with pytest.raises(ValueError, match="cannot be exported"):
            task.export(path, form, verbose=False)
        return
    task.export(path, form, verbose=False)
    # Rows and tokens that were not traced.
    tokens = None if entry.fixed_length else 11
    x = {
        k: v[:, :tokens] if k in TOKEN_FEATURES else v
        for k, v in task.preprocessor(raw(3)[0]).items()
    }
    (found,) = exported_files.run(form, path, x).values()
    (expected,) = exported_files.by_name(task(x)).values()
    assert difference(found, expected) <= 1e-5
