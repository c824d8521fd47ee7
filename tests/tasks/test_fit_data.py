"""Features, labels and draws of fit, and errors before a step."""

import os
import pathlib
import subprocess
import sys

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
from builders import array
from builders import assert_same_weights
from builders import backbone
from builders import clip
from builders import difference
from builders import eager
from builders import fast
from builders import features
from builders import preprocessor
from builders import randomise
from builders import raw
from builders import roberta
from builders import shallow
from builders import slow_on
from builders import some_everywhere
from builders import tokenizer
from keras import ops
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.objectives.losses import MaskedLMLoss
from keras_bridgetower.objectives.losses import VQALoss
from keras_bridgetower.tasks.fit.data_path import Steps

SCORES = np.eye(4, dtype="float32")[:3]
POSITIONS = np.array([[1, 2], [1, 0], [2, 3]], "int32")
TOKENS = np.array([[7, 8], [9, -100], [5, 6]], "int32")
PAIRS = {"itm": np.array([[1, 0, 0]] * 3), "itc": np.arange(3)}


@pytest.fixture(scope="module")
def tasks():
    """Tasks that take features as they are, on one backbone."""
    made = shallow()
    return {
        "vqa": kbt.BridgeTowerVQA(made, answers=ANSWERS),
        "mlm": kbt.BridgeTowerMaskedLM(made),
        "entailment": kbt.BridgeTowerEntailment(made),
        "ranking": kbt.BridgeTowerRetrieval(made, objective="ranking"),
        "hard": kbt.BridgeTowerRetrieval(made, None, "hard_negatives", 8),
    }


def batch(name, **changes):
    made = features()
    if name == "mlm":
        made["mask_positions"] = POSITIONS
    return {**made, **changes}


def changed(values, place, value):
    values = values.copy()
    values[place] = value
    return values


GAP = np.array([[1, 1, 0, 1, 1, 1]] * 3, "int32")
IDS = features()["token_ids"]
BAD = [
    ("vqa", {}, 100 * SCORES, "soft scores from 0 to 1"),
    ("vqa", {"token_ids": changed(IDS, (1, 2), 300)}, SCORES, "`token_ids`"),
    ("vqa", {"padding_mask": GAP}, SCORES, "`padding_mask`"),
    ("mlm", {}, changed(TOKENS, (0, 0), -3), "from 0 to 299, or -100"),
    (
        "mlm",
        {"mask_positions": changed(POSITIONS, (0, 0), 6)},
        TOKENS,
        "`mask_positions`.* from 0 to 5",
    ),
    ("entailment", {}, np.array([0, 1, 3]), "from 0 to 2.*y with 3"),
    ("ranking", {}, np.array([0, 16, 3]), "from 0 to 15.*y with 16"),
    ("vqa", {}, np.array(ANSWERS[:3]), "`y` must hold numbers"),
    ("hard", {}, {**PAIRS, "itm": ["no"] * 3}, "`y` must hold numbers"),
    ("hard", {}, {**PAIRS, "itm": 2 * PAIRS["itm"]}, "from 0 to 1.*with 2"),
]


@LONG_ELSEWHERE
@pytest.mark.parametrize("name, x, y, message", BAD)
def test_values_out_of_range(name, x, y, message, tasks):
    task, x = tasks[name], batch(name, **x)
    with pytest.raises(ValueError, match=message):
        task.train_on_batch(x, y)
    # In a graph TensorFlow wraps what is raised; the sentence is in it.
    data = tf.data.Dataset.from_tensor_slices((x, y)).batch(3)
    with pytest.raises(Exception, match=message):
        list(data.map(task.preprocess_samples))


@FASTEST
def test_arguments_of_fit_that_are_refused(tasks):
    # A table may hold integers as objects.
    task, x = tasks["mlm"], batch("mlm")
    made, labels = task.preprocess_samples(x, TOKENS.astype(object))
    assert made is x and labels.dtype == object
    for call in (task.train_on_batch, task.test_on_batch, task.fit):
        with pytest.raises(ValueError, match="`y` must hold .*y=None"):
            call(x)
    x["mask_positions"] = POSITIONS + 9
    for run in (task.evaluate, task.fit):
        with pytest.raises(ValueError, match="`mask_positions` must hold"):
            run(x, TOKENS, verbose=0)
    row = {name: rows[0] for name, rows in features().items()}
    with pytest.raises(ValueError, match="`x` must hold batches: a dict"):
        tasks["vqa"].predict(iter([row]), verbose=0)
    with pytest.raises(ValueError, match="'sample_weight': 2"):
        tasks["vqa"].fit(batch("vqa"), SCORES, sample_weight=np.ones(2))
    for name, y in (("hard", PAIRS), ("mlm", TOKENS)):
        with pytest.raises(ValueError, match="`class_weight` must be left out"):
            tasks[name].fit(batch(name), y, class_weight={0: 1.0, 1: 2.0})


@ONE_BACKEND
def test_typed_answers_are_compared_as_by_the_evaluator():
    made = preprocessor(["yes", "2", "No", "don't know"])
    typed = ["Yes."] * 3 + ["two", "2"] + ["dont know\n"] + ["NO"] * 4
    found = made.targets(np.array([typed]))
    np.testing.assert_allclose(found, [[0.9, 0.6, 1, 0.3]])
    # Of two answers that are compared as one, that which is spelled so.
    made = preprocessor(["Yes", "yes"])
    assert made.targets(np.array([["YES"] * 10])).tolist() == [[0, 1]]


def test_labels_keep_their_values_in_half_precision():
    logits = np.zeros((1, 1, 600), "float32")
    logits[..., 513] = 5
    tokens, scores = np.array([[513]]), np.array([[0.3]], "float32")
    zero = np.zeros((1, 1), "float32")

    def losses():
        return (
            float(array(MaskedLMLoss()(tokens, logits))),
            float(array(VQALoss()(scores, zero + 2))),
        )

    expected = losses()
    keras.config.set_floatx("bfloat16")
    try:
        assert losses() == expected
    finally:
        keras.config.set_floatx("float32")


ROWS, BATCH = 8, 2
STEPS = ROWS // BATCH


class Seen(kbt.BridgeTowerMaskedLMPreprocessor):
    """Keeps the steps that it saw, and the first letters of their texts."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.steps = []

    def call(self, x, y=None, sample_weight=None):
        tf.numpy_function(self._keep, [x["step"], x["text"]], [])
        return super().call(x, y, sample_weight)

    def _keep(self, step, texts):
        firsts = [text[:1] for text in np.asarray(texts, "bytes")]
        self.steps.append((int(step), [first.decode() for first in firsts]))

    def taken(self):
        """Step to texts, of what came since the last call."""
        found, self.steps = dict(self.steps), []
        return found


@pytest.fixture(scope="module")
def task():
    preprocessor = Seen(
        tokenizer(24), kbt.BridgeTowerImageConverter(SIDE), rate=0.3
    )
    task = kbt.BridgeTowerMaskedLM(shallow(), preprocessor)
    task.start = task.get_weights()
    # Compiled once, which takes longer than all steps.
    fast(task, keras.optimizers.SGD(0.1), jit_compile=MANY_STEPS)
    return task


def fresh(task):
    """The task as it was before its first step."""
    task.set_weights(task.start)
    task.optimizer.iterations.assign(0)
    task.preprocessor.taken()
    return task


def data(rows=ROWS):
    x, _ = raw(rows)
    x["text"] = [f"{chr(97 + i)} {text}" for i, text in enumerate(x["text"])]
    return x


def dataset(rows=ROWS):
    return tf.data.Dataset.from_tensor_slices(data(rows)).batch(BATCH)


@slow_on("tensorflow")
@pytest.mark.filterwarnings("ignore:Your input ran out of data")
def test_the_end_of_a_dataset_is_no_step(task):
    """Also if the number of batches is unknown."""
    ends = []
    for x in (dataset(), dataset().filter(lambda _: True)):
        fresh(task).fit(x, epochs=3, verbose=0)
        ends.append([array(v) for v in task.optimizer.variables])
        assert ends[-1][0] == 3 * STEPS
        ends[-1] += task.get_weights()
    assert_same_weights(*ends)


@LONG_ELSEWHERE
def test_steps_count_on(task):
    """Over epochs, calls, and an iterator that ends within an epoch."""
    made = fresh(task).preprocessor
    task.fit(dataset(), epochs=2, verbose=0)
    assert sorted(made.taken()) == list(range(2 * STEPS))
    task.fit(dataset().repeat(), epochs=2, steps_per_epoch=2, verbose=0)
    assert {8, 9, 10, 11} <= set(made.taken())
    task.evaluate(dataset(), verbose=0)
    assert sorted(made.taken()) == list(range(STEPS))
    fresh(task)
    own = dataset(4).enumerate(start=40)
    task.fit(own.map(lambda i, x: {**x, "step": i}), verbose=0)
    assert sorted(made.taken()) == [40, 41]


@FASTEST
def test_shuffled_arrays(task):
    made = fresh(task).preprocessor

    def orders(**kwargs):
        keras.utils.set_random_seed(3)
        values = dict(batch_size=BATCH, epochs=2, verbose=0) | kwargs
        history = fresh(task).fit(data(), **values).history
        seen = made.taken()
        texts = [seen[step] for step in range(2 * STEPS)]
        return sum(texts[:STEPS], []), sum(texts[STEPS:], []), history

    letters = [chr(97 + i) for i in range(ROWS)]
    assert orders(shuffle=False)[:2] == (letters, letters)
    # As by Keras, they are unless this is refused.
    first, second, history = orders()
    assert sorted(first) == sorted(second) == letters
    assert letters != first != second
    assert orders(shuffle=True) == (first, second, history)


@FASTEST
def test_validation_arguments_without_effect_are_rejected(task):
    with pytest.raises(ValueError, match="at least one sample"):
        task.fit(data(), validation_split=1.0, verbose=0)
    for given in ({"validation_split": 0.5}, {"shuffle": True}):
        with pytest.raises(ValueError, match="needs `x` as a dict"):
            task.fit(dataset(), **given)
    held_out = {"validation_data": dataset()}
    for given in (
        {"validation_split": 0.5, **held_out},
        {"validation_batch_size": 4},
        {"validation_batch_size": 4, **held_out},
    ):
        with pytest.raises(ValueError, match=f"`{[*given][0]}` must"):
            task.fit(data(), verbose=0, **given)


def test_accumulated_steps_count_singly():
    optimizer = keras.optimizers.SGD(0.1, gradient_accumulation_steps=3)
    weight = keras.Variable(np.zeros(2, "float32"))
    steps = Steps(optimizer)
    for _ in range(7):
        optimizer.apply([ops.ones(2)], [weight])
    assert int(array(optimizer.iterations)) == 2
    assert Steps(optimizer).first == 7
    # As of a run that a callback restored, or whose epoch ended within
    # `steps_per_execution`.
    assert steps.first == 0
    steps.on_epoch_begin(1)
    assert steps.first == 7
    scaled = keras.optimizers.LossScaleOptimizer(optimizer)
    assert Steps(scaled).first == 7


def test_random_layers_of_a_task_draw_in_training():
    # Not by dropout, which PyTorch draws by itself.
    body = backbone(clip(layers=2), roberta(), bridge="static_manager")
    task = kbt.BridgeTowerVQA(body, answers=["yes", "no"])
    states = [v for v in body.fusion.variables if v.path.endswith("_state")]
    before = [array(v) for v in states]
    task.compile(
        "sgd", "mse", run_eagerly=keras.config.backend() == "tensorflow"
    )
    x = features(batch=2)
    task.train_on_batch(x, np.zeros((2, 2), "float32"))
    assert any(difference(v, b) for v, b in zip(states, before, strict=True))


@LONG_ELSEWHERE
def test_a_missing_file_is_named_by_its_row_in_the_data(task, tmp_path):
    Image.new("RGB", (40, 30)).save(tmp_path / "a.png")
    paths = [str(tmp_path / "a.png")] * 9
    paths[7] = "no/such.png"
    x = {"images": paths, "text": ["a"] * 9}
    given = {"batch_size": 2, "verbose": 0}
    column = x | {"images": np.array(paths)}
    for call in (
        lambda: task.predict(x, **given),
        lambda: task.predict(column, **given),
        lambda: task.evaluate(x, **given),
        lambda: task.fit(x, **given),
        # In the part to validate on.
        lambda: task.fit(x, **given, validation_split=0.3),
    ):
        with pytest.raises(ValueError, match=r"images\[7\]='no/such.png'"):
            call()


@FASTEST
def test_errors_of_others_stay_as_they_are(task):
    def fail(texts):
        raise ValueError("not ours")

    def failing(x):
        texts = tf.numpy_function(fail, [x["text"]], tf.string)
        return {**x, "text": tf.ensure_shape(texts, [None])}

    with pytest.raises(tf.errors.InvalidArgumentError, match="not ours"):
        task.predict(dataset(2).map(failing), verbose=0)


LABELS = np.eye(2, 4, dtype="float32")
RAW = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), "uint8")


def tensor(x):
    return {k: keras.ops.convert_to_tensor(v) for k, v in x.items()}


def one_batch(*batch):
    return tf.data.Dataset.from_tensors(batch if len(batch) > 1 else batch[0])


# Entries that take features, each with the arguments `(task, features)`.
ENTRIES = {
    "fit": lambda m, x: m.fit(x, LABELS, verbose=0),
    "tf.data": lambda m, x: list(
        one_batch(x, LABELS).map(m.preprocess_samples).as_numpy_iterator()
    ),
    "fit generator": lambda m, x: m.fit(
        ((x, LABELS) for _ in "a"), steps_per_epoch=1, verbose=0
    ),
    "validation": lambda m, x: m.fit(
        features(batch=2), LABELS, validation_data=(x, LABELS), verbose=0
    ),
    "evaluate": lambda m, x: m.evaluate(x, LABELS, verbose=0),
    "predict": lambda m, x: m.predict(x, verbose=0),
    "predict one_batch": lambda m, x: m.predict(one_batch(x), verbose=0),
    "train_on_batch": lambda m, x: m.train_on_batch(x, LABELS),
    "train_on_batch tensor": lambda m, x: m.train_on_batch(tensor(x), LABELS),
    "test_on_batch": lambda m, x: m.test_on_batch(x, LABELS),
    "predict_on_batch": lambda m, x: m.predict_on_batch(x),
    "predict_features": lambda m, x: m.predict_features(x),
    "task": lambda m, x: m(x),
    "task tensor": lambda m, x: m(tensor(x)),
    "backbone": lambda m, x: m.backbone(x),
    "attention_maps": lambda m, x: m.backbone.attention_maps(x),
}
# As raw pictures come: bytes, their floats, after resizing beyond the range,
# and with the mean of a data set subtracted, but not divided.
RAW_FORMS = {
    "uint8": RAW,
    "int32": RAW.astype("int32"),
    "bool": RAW > 127,
    "floats": RAW.astype("float32"),
    "resized": RAW * 1.1 - 9.0,
    "centered": 20.0 - RAW,
}


@pytest.fixture(scope="module")
def by_features():
    """A task that takes features."""
    return eager(kbt.BridgeTowerVQA(randomise(shallow()), answers=ANSWERS))


QUICK = ("fit", "predict one_batch", "task tensor")


@pytest.mark.parametrize("entry", some_everywhere(ENTRIES, *QUICK))
def test_raw_pictures_are_no_features(entry, by_features):
    for images in RAW_FORMS.values() if entry in QUICK else (RAW,):
        told = "`images` must be normalized floats"
        with pytest.raises(Exception, match=told) as caught:
            ENTRIES[entry](by_features, {**features(batch=2), "images": images})
        assert entry == "tf.data" or type(caught.value) is ValueError


@pytest.mark.parametrize(
    "entry", some_everywhere(["tf.data", *QUICK], "tf.data")
)
def test_normalized_pictures_of_any_statistics_are_features(entry, by_features):
    pixels = RAW / 255
    for mean, std in ((0.0, 1.0), (0.5, 0.5), (0.45, 0.04)):
        made = ((pixels - mean) / std).astype("float32")
        made[0, :4] = 0  # padding
        ENTRIES[entry](by_features, {**features(batch=2), "images": made})


@FASTEST
def test_statistics_of_the_preprocessor_are_known():
    converter = kbt.BridgeTowerImageConverter(
        32, mean=(0, 0, 0), std=[1 / 255] * 3
    )
    made = kbt.BridgeTowerVQAPreprocessor(tokenizer(), converter, ANSWERS)
    task = kbt.BridgeTowerVQA(shallow(), made)
    x = made({"images": RAW, "text": ["a", "b"]})
    assert x["images"].max() > 254
    task.predict_features(x)
    task(x)
    with pytest.raises(ValueError, match="normalized floats"):
        task({**x, "images": x["images"] * 1.1})


@keras.saving.register_keras_serializable(package="test")
class RawPixels(keras.Model):
    """An image encoder that normalizes pixels from 0 to 255 itself."""

    def __init__(self, **kwargs):
        x = images = keras.Input((32, 32, 3))
        x = keras.layers.Rescaling(1 / 255)(x)
        x = keras.layers.Conv2D(16, 8, 8)(x)
        x = keras.layers.Reshape((16, 16))(x)
        super().__init__(images, x, **kwargs)


@kbt.hidden_states.register(RawPixels)
def _(encoder):
    return [encoder.output]


@FASTEST
def test_an_encoder_that_rescales_takes_raw_pictures():
    model = backbone(RawPixels(), roberta(layers=1), num_layers=1)
    task = eager(kbt.BridgeTowerVQA(model, answers=ANSWERS))
    for entry in ENTRIES.values():
        entry(task, {**features(batch=2), "images": RAW})
    task({**features(batch=2), "images": RAW.astype("float32")})


@FASTEST
@pytest.mark.parametrize("name", every_task.TASKS)
def test_predictions_of_no_rows_have_the_shapes_of_others(name, by_features):
    task = every_task.make(name, by_features.backbone)
    x = every_task.rows(every_task.raw(name), 0, 2)
    x = {k: np.stack(v) if k == "images" else v for k, v in x.items()}
    expected = task.predict(x, verbose=0)
    made = task.predict(every_task.rows(x, 0, 0), verbose=0)
    assert shapes(made) == shapes(every_task.rows(expected, 0, 0))
    for verb in (task.fit, task.evaluate):
        with pytest.raises(ValueError, match="at least one sample"):
            verb(every_task.rows(x, 0, 0))
    given = task.preprocessor(x)
    given = given[0] if isinstance(given, tuple) else given
    made = task.predict_features(every_task.rows(given, 0, 0))
    assert shapes(made) == shapes(every_task.rows(expected, 0, 0))


def shapes(outputs):
    return keras.tree.map_structure(lambda x: (x.shape, x.dtype), outputs)


RUN = """
import gc
import sys
import builders
import every_task
import keras
task = builders.fast(every_task.make("image_classifier"))
files = sys.argv[1:]
x, y = {"images": files}, ["cat"] * len(files)
good = {key: values[:4] for key, values in x.items()}
data = {"batch_size": 2, "verbose": 0}
check = {"validation_data": (x, y), "validation_batch_size": 2}
last = {key: values[2:] for key, values in x.items()}
several = 1 if keras.config.backend() == "torch" else 2


def in_one_execution():
    task.compile(task.optimizer, steps_per_execution=several)
    task.evaluate(last, y[2:], **data)


calls = [
    lambda: task.fit(x, y, shuffle=False, **data),
    lambda: task.fit(good, y[:4], **check, **data),
    lambda: task.evaluate(x, y, **data),
    lambda: task.predict(x, **data),
    in_one_execution,
]
task.fit(good, y[:4], **data)
task.predict(good, **data)
gc.collect()
assert "_HeldIterators" not in {type(one).__name__ for one in gc.get_objects()}
print("---", file=sys.stderr)
for call in calls:
    try:
        call()
    except ValueError as error:
        print(error, file=sys.stderr)
    print(int(task.optimizer.iterations), file=sys.stderr)
"""


@slow_on("jax", "torch")
def test_damaged_picture_is_one_line_of_error(tmp_path):
    """TensorFlow would log its own error, of two names of operations.

    What came before the picture is trained on, what comes after is not.
    """
    files = [str(tmp_path / f"{i}.png") for i in range(6)]
    rng = np.random.default_rng(0)
    for file in files:
        pixels = rng.integers(0, 256, (40, 40, 3), "uint8")
        Image.fromarray(pixels).save(file)
    content = pathlib.Path(files[5]).read_bytes()
    pathlib.Path(files[5]).write_bytes(content[: len(content) // 2])
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    run = subprocess.run(
        [sys.executable, "-c", RUN, *files],
        env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    _, _, after = run.stderr.partition("---\n")
    lines = after.splitlines()
    assert len(lines) == 10, after
    assert all("images[1]" in line for line in lines[::2])
    assert [*map(int, lines[1::2])] == [4, 6, 6, 6, 6]
