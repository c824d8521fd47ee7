"""Each of the ten tasks trains, and comes back from disk."""

import json

import every_task
import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import ANSWERS
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import MANY_STEPS
from builders import ONE_BACKEND
from builders import SIDE
from builders import difference
from builders import fast
from builders import features
from builders import moved
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import run
from builders import shallow
from builders import slow_on
from builders import tokenizer

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing.classification import ENTAILMENT_LABELS

# Values of constructors that are not the defaults.
VALUES = {
    "vqa": {"head_hidden_scale": 3},
    "masked_lm": {"head_epsilon": 1e-12},
    "contrastive": {"ways": "two_way"},
    "entailment": {"head_hidden_scale": 1},
    "nlvr2": {"head_hidden_scale": 1},
    "pretraining": {"ways": "three_way", "head_epsilon": 1e-12},
}


@pytest.mark.parametrize("name", every_task.TASKS)
@slow_on("tensorflow", "jax")
def test_fit_moves_what_is_trainable_and_lowers_the_loss(name, tmp_path):
    # And a preset gives the trained task back.
    task = every_task.make(name, **VALUES.get(name, {}))
    # A part that is frozen stays.
    if name == "vqa":
        task.backbone.text_tower.trainable = False
    fast(task, keras.optimizers.AdamW(1e-2), MANY_STEPS)
    given = {**every_task.given(name), "batch_size": 4, "verbose": 0}
    changed = moved(task, lambda: task.fit(**given))
    assert changed == {w.path for w in task.trainable_weights}
    losses = task.fit(**given, epochs=6).history["loss"]
    assert min(losses) < losses[0]
    task.save_to_preset(tmp_path / "preset")
    copy = type(task).from_preset(str(tmp_path / "preset"))
    for value in task.config_arguments:
        assert getattr(copy, value) == getattr(task, value)
    x = every_task.raw(name) | {"step": 1}
    made, again = (one.preprocessor(x) for one in (task, copy))
    check_equal(again, made)
    made = made[0] if isinstance(made, tuple) else made
    check_equal(run(copy, made), run(task, made))
    # The whole backbone is kept, also of a task of one tower.
    whole = features()
    assert difference(run(copy.backbone, whole), run(task.backbone, whole)) == 0


X = {"images": np.stack(raw(1)[0]["images"].repeat(3, 0)), "text": ["a"] * 3}
PAIRS = {"images": np.stack([X["images"]] * 2, 1), "text": X["text"]}
EYE = np.eye(4, dtype="float32")
SOFT = EYE[:3] * np.float32(0.3)
TEN = [["no"] * 10, ["yes"] + ["no"] * 2 + ["red"] * 3 + ["pink"] * 4]
LABELS = [
    ("vqa", SOFT, SOFT),
    ("vqa", np.array([2, 0, 1]), EYE[[2, 0, 1]]),
    ("vqa", ["red", "yes", "no"], EYE[[2, 0, 1]]),
    ("vqa", [*TEN, TEN[0]], [EYE[1], [0.3, 0.6, 0.9, 0], EYE[1]]),
    ("entailment", [2, 0, 1], [2, 0, 1]),
    ("entailment", ["entailment", "contradiction", "neutral"], [2, 0, 1]),
    ("nlvr2", [True, False, True], [1, 0, 1]),
    ("nlvr2", ["True", "False", "True"], [1, 0, 1]),
    ("image_classifier", ["dog", "cat", "owl"], [1, 0, 2]),
    ("text_regressor", [0.5, -1.0, 3.0], [[0.5], [-1.0], [3.0]]),
    ("contrastive", [3, 8, -3], [3, 8, -3]),
]


def raw_of(name):
    x = PAIRS if name == "nlvr2" else X
    case = every_task.TASKS.get(name)
    return {key: x[key] for key in case.names} if case else x


@ONE_BACKEND
@pytest.mark.parametrize("name, y, expected", LABELS)
def test_forms_of_labels(name, y, expected):
    made, x = every_task.preprocessor(name), raw_of(name)
    dtype = np.asarray(expected).dtype.kind.replace("f", "float32")
    dtype = dtype.replace("i", "int32")
    for given in (y, np.array(y)):
        _, eager = made(x, y=given)
        np.testing.assert_allclose(eager, expected, atol=1e-7)
        assert eager.dtype == dtype
    # The same inside tf.data, batched and one by one.
    rows = tf.data.Dataset.from_tensor_slices((x, tf.constant(y)))
    ((_, mapped),) = rows.batch(3).map(made)
    np.testing.assert_allclose(mapped, expected, atol=1e-7)
    for (_, single), row in zip(rows.map(made), expected, strict=True):
        np.testing.assert_allclose(single, row, atol=1e-7)


@ONE_BACKEND
@pytest.mark.parametrize(
    "name, y, message",
    [
        ("vqa", ["red", "pink", "red"], "y='pink'"),
        ("vqa", np.array([0, 4, 0]), "y=4"),
        ("vqa", np.ones((3, 5), "float32"), r"\(batch, 4\)"),
        ("vqa", EYE[:3] * 30, "soft scores from 0 to 1"),
        ("entailment", [0, 3, 0], "y=3"),
        ("entailment", ["neutral", "maybe", "neutral"], "y='maybe'"),
        ("entailment", np.array([[0], [1], [2]]), r"shape \(3, 1\)"),
        ("nlvr2", ["True", "true", "True"], "y='true'"),
        ("nlvr2", [0.0, 1.0, 0.0], "dtype float64"),
        ("text_regressor", ["1.5"] * 3, "`y` must"),
        ("contrastive", np.ones(3), "integers or strings"),
        ("retrieval", {"match": [0, 2, 1]}, r"\[0, 2, 1\]"),
        ("retrieval", {"match": [0, 1]}, r"shape \(2,\)"),
        ("retrieval", [[0], [1], [2]], r"shape \(3, 1\)"),
        ("ranking", {"match": [0, 1, 1]}, "must hold image ids"),
    ],
)
def test_labels_that_are_refused(name, y, message):
    made = every_task.preprocessor("retrieval", objective="ranking")
    if name != "ranking":
        made = every_task.preprocessor(name)
    with pytest.raises(ValueError, match=message):
        made(raw_of(name), y=y)


# Preprocessors that draw; the name and the shape of what they draw.
DRAWS = {
    "masked_lm": ("mask_positions", (22,)),
    "pretraining": ("masked_token_ids", (24,)),
    "random_negatives": ("match", ()),
    "hard_negatives": ("image_id", ()),
    "ranking": ("false_texts", (15,)),
    "ranking_and_matching": ("match", ()),
}


@ONE_BACKEND
@pytest.mark.parametrize("kind", DRAWS)
def test_draws_depend_on_the_number_of_the_batch(kind):
    def make(seed=0):
        case = every_task.TASKS.get(kind, every_task.TASKS["retrieval"])
        drawn = {} if kind in every_task.TASKS else {"objective": kind}
        parts = tokenizer(24), kbt.BridgeTowerImageConverter(SIDE)
        values = {"seed": seed, **case.to_preprocess, **drawn}
        return case.preprocessor(*parts, **values)

    made, (x, _), (name, shape) = make(), raw(4), DRAWS[kind]
    y = None if kind == "masked_lm" else every_task.IDS
    # Without a number they are counted, in tf.data too.
    counted = [made(x, y=y) for _ in range(3)]
    rows = tf.data.Dataset.from_tensor_slices(x if y is None else (x, y))
    batches = rows.repeat(3).batch(4, drop_remainder=True)
    assert counted[0][0][name].shape == (4, *shape)
    assert counted[0][0][name].dtype == np.int32
    for found, expected in zip(batches.map(make()), counted, strict=True):
        check_equal(found, expected)
    numbered = [make()({**x, "step": step}, y=y) for step in (7, np.int64(7))]
    check_equal(*numbered)
    check_equal(made({**x, "step": 7}, y=y), numbered[0])
    for other, step in ((made, 8), (make(seed=1), 7)):
        with pytest.raises(AssertionError):
            check_equal(other({**x, "step": step}, y=y), numbered[0])


@ONE_BACKEND
@pytest.mark.filterwarnings("ignore:.*texts cut")
@pytest.mark.parametrize("name", ["masked_lm", "pretraining", "retrieval"])
def test_length_of_texts_is_set_afterwards(name):
    # As in KerasHub, whose tests ask preprocessors that draw nothing: for one
    # preprocessor, and for graphs traced later.
    words = tokenizer(24)
    made, other, short = (
        every_task.preprocessor(name, tokenizer=words)
        for words in (words, words, tokenizer(7))
    )
    x, y = every_task.as_arrays(every_task.raw(name)), every_task.TASKS[name].y
    x |= {"step": np.int64(3)} if made.reads_step else {}
    samples = {key: x[key][None] for key in x}
    samples = samples if y is None else (samples, np.array(y)[None])
    rows = tf.data.Dataset.from_tensor_slices(samples)
    before, long = rows.map(made), made(x, y)
    made.build(None)
    made.sequence_length = 7
    expected = short(x, y)
    assert (made.sequence_length, other.sequence_length) == (7, 24)
    check_equal(made(x, y), expected)
    (found,) = rows.map(made)
    check_equal(found, expected)
    (found,) = before
    check_equal(found, long)
    check_equal(other(x, y), long)
    copy = keras.saving.deserialize_keras_object(
        keras.saving.serialize_keras_object(made)
    )
    assert copy.sequence_length == 7
    with pytest.raises(ValueError, match="sequence_length=0"):
        made.sequence_length = 0


@ONE_BACKEND
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_length_of_texts_in_fit():
    task = randomise(every_task.make("text_regressor"))
    task.compile(keras.optimizers.SGD(0.0), run_eagerly=True)

    def loss():
        given = every_task.given("text_regressor")
        return task.fit(**given, shuffle=False, verbose=0).history

    long, task.preprocessor.sequence_length = loss(), 5
    short = loss()
    values = {"tokenizer": tokenizer(5)}
    task.preprocessor = every_task.preprocessor("text_regressor", **values)
    assert short == loss() != long
    images = every_task.preprocessor("image_classifier")
    assert images.sequence_length is None
    with pytest.raises(ValueError, match="no `tokenizer`"):
        images.sequence_length = 5


def check_equal(a, b):
    for x, y in zip(keras.tree.flatten(a), keras.tree.flatten(b), strict=True):
        np.testing.assert_array_equal(x, y)


IMAGE = np.zeros((20, 30, 3), "uint8")


@pytest.fixture(scope="module")
def tasks():
    """Tasks that are asked but not changed, on one backbone."""
    body = shallow()
    made = {name: every_task.make(name, body) for name in every_task.TASKS}
    made["two_way"] = every_task.make("contrastive", body, ways="two_way")
    return {name: randomise(task) for name, task in made.items()}


def shares(names):
    """Return a function from logits to the best class, and all shares."""

    def result(logits):
        weights = np.exp(logits)
        found = dict(zip(names, weights / weights.sum(), strict=True))
        return max(found, key=found.get), found

    return result


def scored_answers(logits):
    order = np.argsort(-logits)
    return [(ANSWERS[i], 1 / (1 + np.exp(-logits[i]))) for i in order]


def truth(logits):
    best, found = shares([False, True])(logits)
    return best, found[best]


PAIR, LABELLED = ("images", "text"), shares(every_task.LABELS)
# The verb of a task, what it takes, and its result for a row of `predict`.
VERBS = [
    ("vqa", "answer", PAIR, scored_answers),
    ("entailment", "entail", PAIR, shares(ENTAILMENT_LABELS)),
    ("nlvr2", "compare", ("left", "right", "text"), truth),
    ("retrieval", "score", PAIR, lambda logits: logits[1] - logits[0]),
    ("retrieval", "match_logits", PAIR, lambda logits: logits[1]),
    ("image_classifier", "classify", ("images",), LABELLED),
    ("text_classifier", "classify", ("text",), LABELLED),
    ("text_classifier", "classify", ("text", "second_text"), LABELLED),
    ("text_regressor", "rate", ("text",), lambda logits: logits[0]),
    ("text_regressor", "rate", ("text", "second_text"), lambda row: row[0]),
    # Or the output that it returns.
    ("contrastive", "embed", ("no images", "text"), "text"),
    ("contrastive", "embed", ("images",), "image"),
    ("contrastive", "embed", PAIR, "fused"),
    ("two_way", "embed", ("no images", "text"), "text"),
    ("two_way", "embed", ("images",), "image"),
]


@slow_on("tensorflow", "jax")
@pytest.mark.parametrize("name, verb, names, result", VERBS)
def test_verbs_return_what_predict_computes(name, verb, names, result, tasks):
    task = tasks[name]
    x = every_task.rows(every_task.raw(task.task_name), 0, 3)
    if "second_text" in names:
        x["second_text"] = ["a", "b", "c"]
    rows = task.predict(x, verbose=0)
    if isinstance(result, str):
        rows, result = rows[result], np.asarray
    expected = [result(row) for row in rows.astype("float64")]
    if "left" in names:
        x["left"], x["right"] = zip(*x["images"], strict=True)
    columns = [x.get(key) for key in names]
    values = {"top_k": 4} if verb == "answer" else {}
    # Two batches, and one that is filled up.
    for size in (2, 8):
        found = getattr(task, verb)(*columns, **values, batch_size=size)
        check_close(found, expected)
    single = [column and column[1] for column in columns]
    check_close(getattr(task, verb)(*single, **values), expected[1])
    in_lists = [column and column[1:2] for column in columns]
    check_close(getattr(task, verb)(*in_lists, **values), expected[1:2])
    if isinstance(found, np.ndarray):
        assert found.dtype == np.float32


def check_close(found, expected):
    def check(a, b):
        assert a == (b if isinstance(b, str) else pytest.approx(b, abs=1e-6))

    keras.tree.map_structure(check, in_order(found), in_order(expected))


def in_order(result):
    """Return it with lists for dicts; what is no array must be Python's own."""
    text = json.dumps(result, default=np.ndarray.tolist)
    return json.loads(text, object_pairs_hook=list)


@FASTEST
@pytest.mark.parametrize(
    "name, call, message",
    [
        ("vqa", lambda t: t.answer([IMAGE] * 3, ["a", "b"]), "same number"),
        ("vqa", lambda t: t.answer([], ["a"]), "`images`"),
        ("vqa", lambda t: t.answer("/no/such.png", "a"), "/no/such.png"),
        # By the place among all, not in the batch.
        (
            "vqa",
            lambda t: t.answer([IMAGE] * 3 + ["/no.png"], ["a"] * 4, 1, 2),
            r"images\[3\]='/no.png'",
        ),
        ("vqa", lambda t: t.answer(IMAGE, "a", top_k=5), "`top_k`"),
        ("entailment", lambda t: t.entail(IMAGE, ["a", " "]), r"text\[1\]=' '"),
        ("contrastive", lambda t: t.embed(), "`images` or `texts`"),
        ("contrastive", lambda t: t.embed(texts="a", batch_size=0), "batch_si"),
        ("contrastive", lambda t: t.embed([IMAGE], "a"), "same number"),
        ("two_way", lambda t: t.embed(IMAGE, "a"), "together only with ways"),
        ("masked_lm", lambda t: t.fill_mask(IMAGE, "a"), "hold <mask>"),
        ("masked_lm", lambda t: t.fill_mask(IMAGE, "<mask>", 262), "`top_k`"),
        (
            "masked_lm",
            lambda t: t.fill_mask([IMAGE] * 2, ["<mask>", "a" * 30 + "<mask>"]),
            r"text\[1\]",
        ),
        (
            "nlvr2",
            lambda t: t.compare([IMAGE] * 2, [IMAGE] * 2, ["a"]),
            "same number",
        ),
        ("text_classifier", lambda t: t.classify("a", ["c"]), "same number"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*texts cut")
def test_requests_that_are_refused(name, call, message, tasks):
    with pytest.raises(ValueError, match=message):
        call(tasks[name])


MADE = every_task.preprocessor
FEATURES = "must make the features"


@FASTEST
@pytest.mark.parametrize(
    "name, made, values, message",
    [
        ("VQA", preprocessor(side=40), {}, "=40"),
        ("VQA", preprocessor(features=("images", "token_ids")), {}, FEATURES),
        ("VQA", None, {}, "`answers` must be given"),
        ("VQA", preprocessor(), {"answers": ["a"]}, "`answers` must be given"),
        ("TextClassifier", MADE("image_classifier"), {}, FEATURES),
        ("TextClassifier", MADE("text_regressor"), {}, "`labels` must be"),
        ("TextClassifier", MADE("text_classifier"), {"labels": ["a"]}, "`lab"),
        ("Retrieval", None, {"objective": "hard_negatives"}, "`projection_dim"),
        ("Retrieval", None, {"objective": "other"}, "objective='other'"),
        ("Retrieval", MADE("retrieval"), {"objective": "ranking"}, "`prepro"),
        ("Pretraining", MADE("pretraining"), {"objectives": ["mlm"]}, "`prepr"),
    ],
)
def test_values_that_do_not_fit_each_other(name, made, values, message, tasks):
    with pytest.raises(ValueError, match=message):
        getattr(kbt, f"BridgeTower{name}")(
            tasks["vqa"].backbone, made, **values
        )


@FASTEST
def test_without_a_preprocessor(tasks):
    made = tasks["vqa"].backbone
    for verb in (
        lambda: kbt.BridgeTowerVQA(made, answers=ANSWERS).answer(IMAGE, "a"),
        lambda: kbt.BridgeTowerContrastive(made).embed(texts="a"),
        lambda: kbt.BridgeTowerMaskedLM(made).fill_mask(IMAGE, "<mask>"),
    ):
        with pytest.raises(ValueError, match="`preprocessor` must be set"):
            verb()


@LONG_ELSEWHERE
@pytest.mark.parametrize("name", every_task.TASKS)
def test_features_that_do_not_fit_a_call(name, tasks):
    task = tasks[name]
    made = task.preprocessor(every_task.raw(name) | {"step": 0})
    made = made[0] if isinstance(made, tuple) else made
    for key in task.input:
        with pytest.raises(ValueError, match=f"missing: .'{key}'"):
            task({k: v for k, v in made.items() if k != key})
        if len(task.input) > 1:
            with pytest.raises(ValueError, match="same batch size"):
                task({**made, key: made[key][:1]})
    if "images" in task.input:
        with pytest.raises(ValueError, match="shape"):
            task({**made, "images": made["images"][..., :16, :]})
