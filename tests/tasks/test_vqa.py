"""The VQA task, from raw pictures to answers and back to disk."""

import copy
import json
import pathlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import ANSWERS
from builders import FASTEST
from builders import MANY_STEPS
from builders import array
from builders import backbone
from builders import clip
from builders import difference
from builders import eager
from builders import fast
from builders import features
from builders import one_layer_each
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import slow_on
from builders import vqa
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.presets import hub
from keras_bridgetower.presets import registry

IMAGE = np.zeros((20, 30, 3), "uint8")


@pytest.fixture(scope="module")
def asked():
    """A task that is asked but not changed."""
    return randomise(vqa())


@slow_on("tensorflow", "jax")
def test_answer_forms(asked, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "a.png")
    one = asked.answer(tmp_path / "a.png", "is it red?", top_k=3)
    assert len(one) == 3 and all(answer in ANSWERS for answer, _ in one)
    scores = [score for _, score in one]
    assert scores == sorted(scores, reverse=True) and 0 < scores[-1] < 1
    pictures = [tmp_path / "a.png", Image.fromarray(IMAGE), IMAGE]
    many = asked.answer(pictures, ["is it red?", "why?", "is it red?"])
    assert [len(answers) for answers in many] == [1, 1, 1]
    assert many[0][0][0] == many[2][0][0] == one[0][0]
    assert many[0][0][1] == pytest.approx(one[0][1], abs=1e-6)
    [[(answer, score)]] = asked.answer([IMAGE], ["why?"], batch_size=1)
    assert answer == many[1][0][0]
    assert score == pytest.approx(many[1][0][1], abs=1e-6)


@slow_on("tensorflow", "jax")
def test_answer_is_the_sigmoid_of_predict(asked):
    x, _ = raw(5)
    logits = asked.predict(x, verbose=0)
    assert logits.shape == (5, 4) and logits.dtype == np.float32
    answers = asked.answer(list(x["images"]), x["text"], top_k=4)
    for row, ranked in zip(logits, answers, strict=True):
        assert [a for a, _ in ranked] == [ANSWERS[i] for i in np.argsort(-row)]
        np.testing.assert_allclose(
            [s for _, s in ranked],
            sorted(1 / (1 + np.exp(-row)), reverse=True),
            atol=1e-6,
        )


@pytest.mark.parametrize(
    "images, questions, values, message",
    [
        ([IMAGE], ["a", "b"], {}, "same number.*images: 1, questions: 2"),
        ([IMAGE] * 3, ["a", "b"], {}, "or single, not in a list.*images: 3"),
        ([], "a", {}, "`images` must hold at least one"),
        ([IMAGE, IMAGE], ["a", " "], {}, r"not be empty.*text\[1\]=' '"),
        (IMAGE, "a", dict(top_k=5), "from 1 to 4.*Received: top_k=5"),
        (IMAGE, "a", dict(top_k=0), "Received: top_k=0"),
        ("/no/such.png", "a", {}, "/no/such.png"),
    ],
)
def test_bad_questions(asked, images, questions, values, message):
    with pytest.raises(ValueError, match=message):
        asked.answer(images, questions, **values)


@slow_on("jax")
def test_a_broken_picture_is_named(asked, tmp_path):
    Image.fromarray(IMAGE).save(tmp_path / "whole.png")
    data = (tmp_path / "whole.png").read_bytes()
    (tmp_path / "broken.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(ValueError, match=r"images\[1\].*broken\.png"):
        asked.answer(
            [tmp_path / "whole.png", tmp_path / "broken.png"], ["a", "b"]
        )
    # By its place among all, not in its batch.
    with pytest.raises(ValueError, match=r"images\[3\].*no.png"):
        asked.answer([IMAGE] * 3 + ["/no.png"], "a", batch_size=2)


def test_one_picture_is_asked_several_questions(asked):
    questions = ["is it red?", "why?", "is it blue?"]
    found = asked.answer(IMAGE, questions, batch_size=2)
    several = asked.answer([IMAGE] * 3, questions, batch_size=2)
    assert found == several
    one = asked.answer([IMAGE], "why?")
    assert [answer for answer, _ in one[0]] == [found[1][0][0]]


@slow_on("jax")
def test_texts_are_shortened_to_buckets():
    model = randomise(vqa(**one_layer_each()))
    eager(model)
    x, _ = raw(4)
    images, texts = list(x["images"]), ["a", "bc", *x["text"][:2]]
    whole = model.answer(images, texts, top_k=4, batch_size=2)
    model.preprocessor.buckets = (8, 16, 24)
    widths = []
    for x, _ in model.batches(
        "answer",
        model.sources(images, texts, "questions"),
        2,
        buckets=model.buckets,
    ):
        widths.append(x["token_ids"].shape[1])
    assert widths == [8, 16]
    short = model.answer(images, texts, top_k=4, batch_size=2)
    for a, b in zip(whole, short, strict=True):
        assert dict(a) == pytest.approx(dict(b), abs=1e-6)


def test_a_long_question_is_cut_with_one_warning(asked):
    with pytest.warns(UserWarning, match="has 42 tokens.*sequence_length=40"):
        asked.answer(IMAGE, "a" * 40)


def test_special_tokens_in_a_question_are_text():
    ids = preprocessor()({"images": IMAGE, "text": "</s>"})["token_ids"]
    assert (ids == 2).sum() == 1 and ids[5] == 2


SOFT = np.array([[0, 0, 1, 0], [0.3, 0, 0, 0.9]], "float32")


@pytest.mark.parametrize(
    "y, expected",
    [
        (SOFT, SOFT),
        (np.array([2, 0]), np.eye(4)[[2, 0]]),
        (["red", "yes"], np.eye(4)[[2, 0]]),
        (np.array(["red", "yes"]), np.eye(4)[[2, 0]]),
        (
            [["no"] * 10, ["yes"] + ["no"] * 2 + ["red"] * 3 + ["green"] * 4],
            [[0, 1, 0, 0], [0.3, 0.6, 0.9, 0]],
        ),
    ],
)
def test_forms_of_labels(y, expected):
    made = preprocessor()
    x = {"images": [IMAGE, IMAGE], "text": ["a", "b"]}
    _, eager = made(x, y=y)
    np.testing.assert_allclose(eager, expected, atol=1e-7)
    # The same inside tf.data, batched and one by one.
    arrays = {"images": np.stack([IMAGE] * 2), "text": ["a", "b"]}
    rows = tf.data.Dataset.from_tensor_slices((arrays, tf.constant(y)))
    ((found, mapped),) = rows.batch(2).map(made)
    np.testing.assert_allclose(mapped, expected, atol=1e-7)
    assert found["token_ids"].dtype == tf.int32
    for (_, single), row in zip(rows.map(made), expected, strict=True):
        np.testing.assert_allclose(single, row, atol=1e-7)


@pytest.mark.parametrize(
    "y, message",
    [
        (["red", "pink"], "names of .*extend `answers`. Received: y='pink'"),
        (np.array([0, 4]), "ids from 0 to 3.*extend `answers`. Received: y=4"),
        (np.array([0, -1]), "Received: y=-1"),
        (np.ones((2, 3), "float32"), r"soft scores \(batch, 4\).*\(2, 3\)"),
        (np.ones(2, "float32"), "Received: y of shape"),
    ],
)
def test_labels_that_are_refused(y, message):
    x = {"images": [IMAGE, IMAGE], "text": ["a", "b"]}
    with pytest.raises(ValueError, match=message):
        preprocessor()(x, y=y)


def test_features_equal_eagerly_and_in_tf_data():
    made = preprocessor()
    x, _ = raw(3)
    eager = made(x)
    (mapped,) = tf.data.Dataset.from_tensors(x).map(made)
    assert difference({k: v.numpy() for k, v in mapped.items()}, eager) == 0


@FASTEST
def test_fit_takes_every_kind_of_data():
    x, y = raw(8)
    model = fast(vqa(**one_layer_each()), jit_compile=MANY_STEPS)
    before = model.evaluate(x, y, verbose=0, batch_size=4)
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    rows = tf.data.Dataset.from_tensor_slices((x, y))
    model.fit(rows.batch(4), epochs=2, verbose=0)
    mapped = rows.batch(4).map(model.preprocessor)
    found, targets = model.preprocessor(x, y=y)
    bare = kbt.BridgeTowerVQA(model.backbone, answers=ANSWERS)
    fast(bare, jit_compile=MANY_STEPS)
    bare.set_weights(model.get_weights())
    bare.fit(mapped, epochs=2, verbose=0)
    history = bare.fit(found, targets, batch_size=4, epochs=2, verbose=0)
    assert history.history["loss"][-1] < before[0]
    assert "vqa_score" in history.history


def test_datasets_are_read_untuned(asked, monkeypatch):
    """The end of one would wait for the thread that tunes it."""
    read = []
    for name in ("fit", "evaluate", "predict"):
        monkeypatch.setattr(
            keras.Model,
            name,
            lambda self, x, **kwargs: read.append((x, kwargs)),
        )
    x, y = raw()
    chosen = tf.data.Options()
    chosen.autotune.enabled = True
    own = tf.data.Dataset.from_tensor_slices((x, y)).batch(2)
    asked.fit(x, y, validation_data=own)
    asked.evaluate(own)
    asked.predict(x)
    read.append((read[0][1]["validation_data"], {}))
    # Keras gets an adapter, which closes the dataset's iterators.
    for adapter, _ in read:
        options = adapter.get_tf_dataset().options()
        assert options.autotune.enabled is False
    asked.evaluate(own.with_options(chosen))
    options = read[-1][0].get_tf_dataset().options()
    assert options.autotune.enabled is True


@slow_on("tensorflow")
def test_wrong_answers_stop_fit_by_name():
    x, y = raw(4)
    model = vqa()
    # The labels come first; a step of the whole model would only take longer.
    model.backbone.trainable = False
    with pytest.raises(Exception, match="y='pink'"):
        fast(model).fit(x, y[:3] + ["pink"], batch_size=4, verbose=0)


@slow_on("tensorflow")
def test_ids_without_a_preprocessor_are_refused():
    model = fast(kbt.BridgeTowerVQA(backbone(), answers=ANSWERS))
    with pytest.raises(ValueError, match="`y` must hold soft scores"):
        model.fit(features(), np.array([0, 1, 2]), verbose=0)
    with pytest.raises(ValueError, match="`preprocessor` must be set"):
        model.answer(IMAGE, "a")
    with pytest.raises(ValueError, match="missing: .'padding_mask'"):
        model({k: v for k, v in features().items() if k != "padding_mask"})


@pytest.mark.skipif(
    keras.config.backend() == "torch",
    reason="torch compiles for minutes on a CPU",
)
@slow_on("tensorflow", "jax")
def test_compiled_by_xla():
    x, y = raw(4)
    model = vqa(dropout=0.1, **one_layer_each())
    model.compile(keras.optimizers.SGD(0.1), jit_compile=True)
    model.optimizer.build(model.trainable_variables)
    model.fit(x, y, batch_size=4, verbose=0)
    compiled = model.predict(x, verbose=0)
    model.compile(jit_compile=False)
    assert difference(compiled, model.predict(x, verbose=0)) <= 1e-5
    loss, _ = model.evaluate(x, y, verbose=0)
    assert np.isfinite(loss)


@slow_on("tensorflow", "jax")
def test_mixed_bfloat16():
    x, y = raw(4)
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        # No other test shares its operations, so JAX is better off with XLA.
        model = fast(vqa(**one_layer_each()), jit_compile=MANY_STEPS)
    finally:
        keras.config.set_dtype_policy("float32")
    full = vqa(**one_layer_each())
    full.set_weights(model.get_weights())
    a, b = (m.predict(x, verbose=0) for m in (full, model))
    assert b.dtype == np.float32
    assert np.linalg.norm(a - b) / np.linalg.norm(a) <= 3e-2
    history = model.fit(x, y, batch_size=4, epochs=3, verbose=0).history
    assert history["loss"][-1] < history["loss"][0]
    assert {str(w.dtype) for w in model.trainable_weights} == {"float32"}


@slow_on("tensorflow", "jax")
def test_lora_trains_adapters_and_head_only(tmp_path):
    model = vqa()
    x, y = raw(4)
    expected = model.predict(x, verbose=0)
    model.enable_lora(2)
    fast(model)
    names = {w.path.split("/")[-1] for w in model.backbone.trainable_weights}
    assert names == {"lora_kernel_a", "lora_kernel_b"}
    assert difference(model.predict(x, verbose=0), expected) <= 1e-6
    before = {w.path: array(w) for w in model.weights}
    model.fit(x, y, batch_size=4, epochs=2, verbose=0)
    moved = {w.path for w in model.weights if difference(w, before[w.path])}
    assert moved == {w.path for w in model.trainable_weights}
    trained = model.predict(x, verbose=0)
    model.backbone.save_lora_weights(tmp_path / "a.lora.h5")
    for weight in model.backbone.trainable_weights:
        weight.assign(array(weight) * 0)
    model.backbone.load_lora_weights(tmp_path / "a.lora.h5")
    assert difference(model.predict(x, verbose=0), trained) <= 1e-6


@pytest.mark.parametrize("soft", [True, False])
def test_losses_of_other_targets_are_rejected(soft):
    ids, one_hot = np.arange(4, dtype="int32"), np.eye(4, dtype="float32")
    model = kbt.BridgeTowerVQA(backbone(), answers=ANSWERS)
    of_ids = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    of_scores = keras.losses.CategoricalCrossentropy(from_logits=True)
    x, right = features(model.backbone, batch=4), (of_ids, of_scores)[soft]
    wrong = of_ids if soft else of_scores
    model.compile("sgd", loss=wrong, metrics=[])
    with pytest.raises(ValueError, match="`loss` must take targets"):
        model.evaluate(x, one_hot if soft else ids, verbose=0)
    model.compile("sgd", loss=right, metrics=[])
    found = model.evaluate(x, one_hot if soft else ids, verbose=0)
    logits = model.predict(x, verbose=0).astype("float64")
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    assert found == pytest.approx(-np.log(shares[ids, ids]).mean(), abs=1e-5)


def test_lora_weights_of_a_task_include_its_head(tmp_path):
    model, file = vqa(), tmp_path / "a.lora.h5"
    x, _ = raw(4)
    other = copy.deepcopy(model)
    with pytest.raises(ValueError, match="no adapters"):
        model.save_lora_weights(file)
    model.enable_lora(2)
    for weight in model.trainable_weights:
        weight.assign(array(weight) + 0.1)
    model.save_lora_weights(file)
    expected = model.predict(x, verbose=0)
    assert difference(other.predict(x, verbose=0), expected) > 1e-3
    other.load_lora_weights(file)
    assert difference(other.predict(x, verbose=0), expected) <= 1e-6

    with pytest.raises(ValueError, match="heads of a task too"):
        vqa().backbone.load_lora_weights(file)
    model.backbone.save_lora_weights(tmp_path / "b.lora.h5")
    with pytest.raises(ValueError, match="must hold the heads"):
        vqa().load_lora_weights(tmp_path / "b.lora.h5")


@slow_on("jax")
def test_a_frozen_tower_stays():
    model = vqa()
    model.backbone.text_tower.trainable = False
    eager(model)
    before = {w.path: array(w) for w in model.weights}
    x, y = raw(4)
    model.fit(x, y, batch_size=4, verbose=0)
    moved = {w.path for w in model.weights if difference(w, before[w.path])}
    assert moved == {w.path for w in model.trainable_weights}


@slow_on("tensorflow", "jax")
def test_save_and_load_as_a_file(tmp_path):
    model = randomise(fast(vqa(**one_layer_each())))
    x, y = raw(4)
    model.fit(x, y, batch_size=4, verbose=0)
    model.save(tmp_path / "a.keras")
    copy = keras.saving.load_model(tmp_path / "a.keras")
    assert (
        difference(copy.predict(x, verbose=0), model.predict(x, verbose=0)) == 0
    )
    assert copy.answers == ANSWERS and int(copy.optimizer.iterations) == 1
    assert copy.get_compile_config() == model.get_compile_config()


def saved(tmp_path):
    model = randomise(vqa())
    model.save_to_preset(tmp_path / "preset")
    return model, tmp_path / "preset"


def test_save_and_load_as_a_preset(tmp_path):
    model, folder = saved(tmp_path)
    x, _ = raw(4)
    expected = model.predict(x, verbose=0)
    copy = kbt.BridgeTowerVQA.from_preset(folder, answers=ANSWERS)
    assert difference(copy.predict(x, verbose=0), expected) <= 1e-6
    assert copy.get_config()["head_hidden_scale"] == 2
    alone = kbt.BridgeTowerVQAPreprocessor.from_preset(str(folder))
    assert difference(alone(x), model.preprocessor(x)) == 0
    assert sorted(p.name for p in tmp_path.iterdir()) == ["preset"]
    with pytest.raises(ValueError, match="must not exist yet"):
        model.save_to_preset(folder)


@slow_on("tensorflow", "jax")
def test_other_answers_give_a_new_head_and_say_so(tmp_path):
    model, folder = saved(tmp_path)
    with pytest.warns(UserWarning, match="the head vqa.*with other values"):
        copy = kbt.BridgeTowerVQA.from_preset(folder, answers=["a", "b"])
    assert copy.answers == copy.preprocessor.answers == ["a", "b"]
    pooled = [m.backbone(features())["pooled"] for m in (model, copy)]
    assert difference(*pooled) <= 1e-6


@slow_on("tensorflow", "jax")
def test_a_backbone_preset_gives_a_new_head(tmp_path):
    model = randomise(backbone())
    model.save_to_preset(tmp_path / "bare")
    with pytest.warns(UserWarning, match="holds no head"):
        task = kbt.BridgeTowerVQA.from_preset(
            tmp_path / "bare", answers=ANSWERS, preprocessor=None
        )
    inputs = features()
    assert difference(task.backbone(inputs), model(inputs)) <= 1e-6
    with pytest.raises(ValueError, match="`answers` must list"):
        kbt.BridgeTowerVQA.from_preset(tmp_path / "bare", preprocessor=None)


@slow_on("tensorflow")
def test_a_changed_preset_is_refused(tmp_path):
    _, folder = saved(tmp_path)
    manifest = json.loads((folder / "manifest.json").read_text())
    files = [p for p in folder.rglob("*") if p.is_file()]
    assert len(manifest["sha256"]) == len(files) - 1
    for name in manifest["sha256"]:
        path = folder / name
        whole = path.read_bytes()
        flipped = bytes([whole[len(whole) // 2] ^ 1])
        middle = len(whole) // 2
        path.write_bytes(whole[:middle] + flipped + whole[middle + 1 :])
        with pytest.raises(ValueError, match=f"{path.name} was changed"):
            kbt.BridgeTowerVQA.from_preset(folder)
        path.write_bytes(whole)
    (folder / "task.weights.h5").unlink()
    with pytest.raises(ValueError, match="task.weights.h5 is missing"):
        kbt.BridgeTowerVQA.from_preset(folder)


def test_an_unknown_preset_lists_what_is_accepted(tmp_path):
    for name in ("bridgetower_huge", str(tmp_path)):
        with pytest.raises(
            ValueError, match="bridgetower_tiny_easy_vqa.*hf://.*Received"
        ):
            kbt.BridgeTowerVQA.from_preset(name)


@FASTEST
@pytest.mark.parametrize("scheme", ["hf", "kaggle"])
def test_handles_are_downloaded(scheme, tmp_path, monkeypatch):
    _, folder = saved(tmp_path)
    asked = []

    def download(handle):
        asked.append(handle)
        return str(folder)

    monkeypatch.setitem(hub.DOWNLOADS, scheme, download)
    model = kbt.BridgeTowerVQA.from_preset(f"{scheme}://someone/model")
    assert asked[0] == "someone/model" and model.answers == ANSWERS


@slow_on("tensorflow", "jax")
def test_parts_that_do_not_fit_each_other():
    with pytest.raises(ValueError, match="32.*Received: image_size=40"):
        kbt.BridgeTowerVQA(backbone(), preprocessor(side=40))
    with pytest.raises(ValueError, match="those of the preprocessor"):
        kbt.BridgeTowerVQA(backbone(), preprocessor(), answers=["a"])
    with pytest.raises(ValueError, match="Received: answers=None"):
        kbt.BridgeTowerVQA(backbone())
    with pytest.raises(ValueError, match="distinct strings.*answers="):
        preprocessor(answers=["a", "a"])
    with pytest.raises(ValueError, match="Received: features="):
        kbt.BridgeTowerVQA(
            backbone(),
            preprocessor(features=("images", "token_ids")),
        )
    small = backbone(clip(side=32))
    small.text_encoder.max_sequence_length = 4
    with pytest.raises(ValueError, match="sequence_length=40"):
        kbt.BridgeTowerVQA(small, preprocessor())


def test_raw_inputs_need_both_keys():
    for x in ({"images": IMAGE}, "a", {"text": "a"}):
        with pytest.raises(ValueError, match="'images' and 'text'"):
            preprocessor()(x)


def test_nothing_is_read_from_outside_the_package():
    inside = [n for n, preset in registry.PRESETS.items() if not preset.handle]
    assert inside
    for name in inside:
        assert pathlib.Path(registry.resolve(name)).is_relative_to(
            pathlib.Path(kbt.__file__).parent
        )
