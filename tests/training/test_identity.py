"""Runs that differ from their checkpoint, or share its folder, are rejected."""

import dataclasses
import json
import subprocess

import keras
import launch
import pytest
import resume_run
import streams
from builders import FASTEST
from builders import assert_same_weights
from builders import long_but
from keras import callbacks

from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.preprocessing.images import MEAN
from keras_bridgetower.training.optim.adamw import AdamW
from keras_bridgetower.training.optim.adamw import WarmupPolynomial
from keras_bridgetower.training.runs import checks
from keras_bridgetower.training.runs import places
from keras_bridgetower.training.runs.checkpoint import Checkpoint
from keras_bridgetower.training.runs.folders import CheckpointError

pytestmark = FASTEST


def task(**kwargs):
    return resume_run.task(AdamW(**{"learning_rate": 1e-2} | kwargs))


def decaying(peak=1e-2, steps=12):
    return {"learning_rate": WarmupPolynomial(peak, total_steps=steps)}


@pytest.fixture(scope="module")
def begun(tmp_path_factory):
    """Return the folder of a run of two steps, and its model."""
    folder, built = tmp_path_factory.mktemp("begun"), task(**decaying())
    Checkpoint(folder, resume_run.Rows(), 2).fit(built, 2, verbose=0)
    return folder, built


OPTIMIZERS = (
    (decaying(2e-2), "learning_rate.peak: 0.01 then, 0.02 now"),
    ({"weight_decay": 0.1}, "weight_decay: 0.01 then, 0.1 now"),
    ({"global_clipnorm": 1.0}, "global_clipnorm: None then, 1.0 now"),
)


def test_other_optimizers_data_and_settings_are_rejected(begun):
    (folder, saved), built = begun, task()

    def resumed(stream=None, settings=None, optimizer=None, force=False):
        optimizer = optimizer or AdamW(**decaying())
        resume_run.compiled(built, optimizer)
        stream = stream or resume_run.Rows()
        checkpoint = Checkpoint(folder, stream, settings=settings)
        return checkpoint.resume(built, force)

    other, sgd = resume_run.Rows(), keras.optimizers.SGD(0.1)
    other.identity = {"batch_size": 8}
    for given, line in (
        *(
            ({"optimizer": AdamW(**decaying() | change)}, f"optimizer.{line}")
            for change, line in OPTIMIZERS
        ),
        ({"optimizer": sgd}, "optimizer: 'AdamW' then, 'SGD' now"),
        ({"optimizer": sgd, "force": True}, "variables that differ"),
        ({"stream": other}, "batch_size: None then, 8 now"),
        ({"stream": resume_run.Rows(3)}, "steps_per_epoch: 6 then, 3 now"),
        ({"settings": {"seed": 1}}, "seed: None then, 1 now"),
    ):
        with pytest.raises(CheckpointError, match=line):
            resumed(**given)
    for given in ({}, {"settings": {"seed": 1}, "force": True}):
        assert resumed(**given) == checks.Position(0, 2)
        assert_same_weights(built.trainable_weights, saved.trainable_weights)
    # An epoch of another length begins again: no row is skipped.
    assert resumed(resume_run.Rows(3), force=True).step == 0


def lines(one, other):
    return {k for k in {*one, *other} if one.get(k) != other.get(k)}


@pytest.fixture(scope="module")
def of_records(tmp_path_factory):
    """Return a stream and a task with a preprocessor."""
    folder = tmp_path_factory.mktemp("records")
    rows = [streams.record("captions", i, samples=1) for i in range(8)]
    streams.write(folder, rows, "captions")
    return resume_run.of_records(folder)


def test_identity_of_models(of_records):
    stream, built = of_records
    then = checks.describe_run(built, stream)
    assert then == json.loads(json.dumps(then))
    assert "0x" not in str(then)
    # Equal in a second model, which has other names.
    one, other = (
        checks.describe_run(resume_run.task(), stream) for _ in range(2)
    )
    assert one == other
    preprocessor = built.preprocessor
    converter, tokens = preprocessor.image_converter, preprocessor.tokenizer
    fusion = built.backbone.fusion._flatten_layers()
    dropout = next(x for x in fusion if isinstance(x, keras.layers.Dropout))
    half = keras.DTypePolicy("mixed_bfloat16")
    start = "preprocessor.image_converter"
    for name, owner, attribute, value in (
        (f"{start}.mean", converter, "mean", MEAN[::-1]),
        (f"{start}.mode", converter, "mode", "crop"),
        ("preprocessor.rate", preprocessor, "rate", 0.5),
        ("preprocessor.tokenizer.sequence_length", tokens, None, 20),
        ("dropout", dropout, "rate", 0.3),
        # As in quantized or converted layers.
        ("dtype", dropout, "dtype_policy", half),
    ):
        attribute = attribute or name.rpartition(".")[2]
        before = getattr(owner, attribute)
        setattr(owner, attribute, value)
        assert lines(then, checks.describe_run(built, stream)) == {name}
        setattr(owner, attribute, before)


def test_identity_of_custom_transforms():
    def steps(number):
        return lambda image, side, rng, texts: image.resize((side, number))

    library = transform("blip", 32)
    assert checks.source_sum(library) is None
    assert not any(map(checks.source_sum, library.steps))

    def sources(step):
        changed = dataclasses.replace(library, steps=(step,))
        return [checks.source_sum(part) for part in (changed, step)]

    assert sources(steps(32)) != sources(steps(33))
    assert sources(steps(32)) == sources(steps(32))


HOLDS = """
import filelock, sys
lock = filelock.FileLock(sys.argv[1])
lock.acquire()
print("held", flush=True)
sys.stdin.read()
"""


def test_one_run_in_a_folder(tmp_path):
    """Lock a folder until the process ends in any way."""
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    command = ["-c", HOLDS, tmp_path / places.LOCK]
    (process,) = launch.started([command], [{}], **pipes)
    with process:
        assert process.stdout.readline() == "held\n"
        checkpoint = Checkpoint(tmp_path, resume_run.Rows())
        with pytest.raises(CheckpointError, match="one run at a time"):
            checkpoint.fit(task(), 2, verbose=0)
        process.kill()
    checkpoint.fit(task(), 2, verbose=0)


class Rises(keras.callbacks.Callback):
    """Logs a score that gets worse from the second epoch on."""

    def on_epoch_end(self, epoch, logs=None):
        logs["score"] = 1.0 + epoch


@pytest.mark.parametrize("steps", long_but([7, 8], 8))
def test_states_of_keras_callbacks_continue(tmp_path, steps):
    """Interrupt after the second epoch, at its end or within the third."""

    def run(name, *ends):
        keras.utils.set_random_seed(0)
        built = task()
        score = {"monitor": "score", "mode": "min"}
        best = {"save_best_only": True, "save_weights_only": True}
        counted = [
            callbacks.ReduceLROnPlateau(factor=0.5, patience=2, **score),
            callbacks.LearningRateScheduler(lambda epoch, rate: rate * 0.9),
            callbacks.ModelCheckpoint(
                tmp_path / f"{name}.weights.h5", **score, **best
            ),
            callbacks.EarlyStopping(patience=4, **score),
        ]
        checkpoint = Checkpoint(tmp_path / name, resume_run.Rows(3), every=1)
        added = [Rises(), *counted, *ends]
        return built, checkpoint.fit(built, 60, added, verbose=0), counted

    whole, history, counted = run("whole")
    assert history.epoch == [0, 1, 2, 3, 4]
    with pytest.raises(KeyboardInterrupt):
        run("part", resume_run.After(steps))
    goes_on, history, also = run("part")
    assert history.epoch == [2, 3, 4]
    for one, two in zip(counted, also, strict=True):
        for name in ("wait", "best", "cooldown_counter", "stopped_epoch"):
            assert getattr(one, name, None) == getattr(two, name, None)
    assert_same_weights(whole, goes_on)
    slots = (task.optimizer.variables for task in (whole, goes_on))
    assert_same_weights(*slots)
    # It has stopped, and does not train again.
    _, history, _ = run("part")
    assert history.epoch == []
