"""Processes of one run read each row once, draw apart, and stop together."""

import json
import pathlib
import re

import forks
import keras
import launch
import numpy as np
import pytest
import ranks_run
import streams
from builders import FASTEST
from builders import SIDE
from builders import shallow
from builders import slow_on
from builders import tokenizer
from launch import BACKEND
from ranks_run import RECORDS
from ranks_run import ROWS
from ranks_run import SAMPLES
from ranks_run import STEPS

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.stream.epoch_order import Sequential
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution import strategy as strategies
from keras_bridgetower.distribution.strategy import ProcessError
from keras_bridgetower.distribution.strategy import Several
from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.tasks.fit.batch_checks import check_partners

RUN = pathlib.Path(__file__).parent / "ranks_run.py"
KIND = "data_parallel" if BACKEND == "torch" else "multi_worker"


def ran(what, folder, kind=KIND):
    """Run two processes; return the arrays and facts that each has saved."""
    rows = [streams.record("captions", i, samples=1) for i in range(RECORDS)]
    streams.write(folder / "records", rows, "captions")
    run = [RUN, what, folder / "records", folder]
    environments = [one | {"KIND": kind} for one in launch.two_processes()]
    # Each may trace a model, and all share the cores.
    launch.codes(forks.started([run] * 2, environments), timeout=1800)
    return [
        (
            np.load(folder / f"{index}.npz"),
            json.loads((folder / f"{index}.json").read_text()),
        )
        for index in range(2)
    ]


def check_read(found):
    """Check that in an epoch every row is decoded once, by one process."""
    _, facts = zip(*found, strict=True)
    decoded = [tuple(row) for one in facts for row in one["decoded"]]
    assert len(decoded) == len(set(decoded)) == STEPS * 8
    assert len({len(one["decoded"]) for one in facts}) == 1


WEIGHTS = {"weights": "process 0.*weights=.*process 1: weights="}


def check_faults(found):
    """Check that each fault ends all processes with one error."""
    differ = {
        "older": r"=\['step-000000006'\].*=\['step-000000004'\]",
        "seed": "process 0.*stream.seed=3.*process 1: .*stream.seed=4",
        "stream": "the same stream.*process 0.*: seed=3\nprocess 1: seed=4",
        **WEIGHTS,
    }
    if BACKEND == "jax":
        differ["start"] = "must begin with the same weights"
    facts = check_errors(found, differ)
    assert {one["faults"]["same"][0] for one in facts} == {""}


def check_errors(found, differ):
    facts = [facts for _, facts in found]
    for fault, text in differ.items():
        (error,) = {one["faults"][fault][0] for one in facts}
        assert re.search(f"(?s)All processes.*{text}", error)
        assert max(one["faults"][fault][1] for one in facts) < 60
    return facts


def check_trained(found):
    check_read(found)
    arrays, _ = zip(*found, strict=True)
    whole = {k: v for k, v in arrays[0].items() if k.startswith("whole/")}
    assert whole
    for one in arrays:
        for name, weight in whole.items():
            # Continued, as in one go; and the same in every process.
            for other in (name, name.replace("whole", "part")):
                np.testing.assert_array_equal(one[other], weight)
    check_draws(arrays)


def check_draws(arrays):
    """Check that draws of two processes are independent."""
    for kind in ("mask/", "match/"):
        names = [[n for n in one if n.startswith(kind)] for one in arrays]
        one, other = (
            np.stack([one[name] for name in sorted(own)])
            for one, own in zip(arrays, names, strict=True)
        )
        assert (one != other).any()
        assert not set(names[0]) & set(names[1])
    if BACKEND != "jax":
        one, other = (one["dropped"] for one in arrays)
        kept = np.mean([one, other])
        expected = kept**2 + (1 - kept) ** 2
        assert (one == other).mean() == pytest.approx(expected, abs=0.02)


@pytest.fixture(scope="module")
def two_that_trained(tmp_path_factory):
    return ran("trained", tmp_path_factory.mktemp("trained"))


# Each process of TensorFlow and JAX traces its model for a minute.
of_two_that_trained = slow_on("tensorflow", "jax")


@of_two_that_trained
def test_rows_read_in_different_orders_are_rejected(two_that_trained):
    for name in two_that_trained[0][1]["orders"]:
        first, second = (facts["orders"][name] for _, facts in two_that_trained)
        if name in READ:
            for one, other in zip(first, second, strict=True):
                assert sorted(one + other) == list(range(ROWS))
            assert (first[0] == first[1]) == (name in SAME_IN_EACH_PASS)
        else:
            assert first == second
            assert re.search(r"in the same order.*`dataset.shuffle\(", first)
            batches = 8 if name == "later" else 4
            assert f"Received: {batches} batches that differ" in first


SAME_IN_EACH_PASS = ("in order", "no labels")
READ = (*SAME_IN_EACH_PASS, "seed", "augmented")


@of_two_that_trained
def test_two_processes_train(two_that_trained):
    check_trained(two_that_trained)
    check_faults(two_that_trained)
    if BACKEND != "jax":
        return
    for name, alone in ranks_run.asked(Strategy()).items():
        assert np.ptp(alone) > 0.1
        for arrays, _ in two_that_trained:
            np.testing.assert_allclose(arrays[name], alone, atol=1e-5)


@pytest.fixture(scope="module")
def split(tmp_path_factory):
    """Return what two processes with split weights found."""
    if BACKEND != "torch":
        pytest.skip("only PyTorch's way")
    return ran("split", tmp_path_factory.mktemp("split"), "fsdp")


def test_two_processes_train_with_split_weights(split):
    check_trained(split)
    check_errors(split, WEIGHTS)
    for arrays, _ in split:
        weights, optimizer = arrays["shares"]
        assert weights < 0.01 and 0.45 < optimizer < 0.55


@pytest.mark.slow
@pytest.mark.skipif(BACKEND != "jax", reason="PyTorch's are above")
def test_two_processes_of_jax_train_with_split_weights(tmp_path):
    check_trained(ran("trained", tmp_path, "fsdp"))


REFUSED_WHERE_SPLIT = {
    "callback": "use a `Checkpoint`.*Received: ModelCheckpoint",
    "batch": "call it in place of `train_on_batch`",
    "optimizer": "needs one of the optimizers.*Received: Adafactor",
    "activations": "must be called before the first `fit`",
}


def test_passes_with_split_weights(split):
    """Averages, errors, frozen weights, and what is refused."""
    one = ranks_run.averages(Strategy())
    for _, facts in split:
        found = facts["passes"]
        for mine, given in zip(found["averages"], one, strict=True):
            np.testing.assert_allclose(mine, given, atol=1e-6)
        assert found["after an error"] == 0.0
        frozen, not_frozen = found["moved"]
        assert frozen == 0.0 and not_frozen > 1e-4
        for name, text in REFUSED_WHERE_SPLIT.items():
            assert re.search(text, found["refused"][name]), name


@of_two_that_trained
def test_undivided_data_are_divided_or_rejected(two_that_trained):
    found, other = (facts["plain"] for _, facts in two_that_trained)
    assert found == other
    rows = SAMPLES - 5 * (BACKEND != "jax")
    count, difference = found.pop("predicted")
    assert count == rows and difference < 1e-5
    assert found.pop("evaluate") == [1000 + rows]
    for name in ("fit arrays", "validate"):
        assert found.pop(name) == [1000 + SAMPLES] * 2, name
    for name, text in REFUSED.items():
        assert re.search(text, found.pop(name))
    assert set(map(str, found.values())) == {f"[{1000.0 + SAMPLES}]"}
    assert set(found) == {"fit a dataset", "fit a divided dataset"}


NO_DATASET = "With 2 processes `x` must be.*Received: a {}"
REFUSED = {
    "fit rows of its own": "in the same order.*differ between the processes",
    "fit a generator": NO_DATASET.format("list_iterator"),
    "predict a PyDataset": NO_DATASET.format("Batches"),
    "fit another number of rows": "`batch_size` that divides the rows",
}


class Pair(Strategy):
    """One of two processes, with a fixed text of the other."""

    processes = 2

    def __init__(self, other, index=0):
        self.other, self.index = other, index

    def gather_text(self, text):
        texts = [text, self.other]
        return texts if self.index == 0 else texts[::-1]


def failing():
    raise OSError("no space left")


@FASTEST
def test_an_error_in_one_process_ends_all():
    other = "process 0: nothing.*process 1: no such file"
    for strategy, function, error, message in (
        (Pair("no such file"), int, ProcessError, f"(?s){other}"),
        (Pair(""), failing, ProcessError, "process 0: no space left"),
        # With one process, or equal errors, the original error is raised.
        (Pair("no space left"), failing, OSError, "no space left"),
        (Strategy(), failing, OSError, "no space left"),
    ):
        with pytest.raises(error, match=message):
            strategy.together(function)
    assert Pair("").together(lambda: 3) == 3
    # Waiting for process 0 raises nothing.
    assert Pair("", index=1).by_chief(failing) is None


class Apart(Pair):
    own_draws = staticmethod(process_seeds.select)


@FASTEST
def test_random_states_are_restored_by_process():
    seed = "model/3/seed_generator_state"
    one = {seed: np.array([7, 2]), "random/cpu": np.arange(4, dtype="uint8")}
    other = {seed: ["int64", [8, 5]], "random/cpu": ["uint8", [3, 2, 1, 0]]}
    saved = process_seeds.with_all_processes(
        Apart(json.dumps(other)), {**one, "model/0/kernel": np.ones(2)}
    )
    first = process_seeds.for_process(Apart(""), saved)
    second = process_seeds.for_process(Apart("", index=1), saved)
    assert set(first) == set(second) == {*one, "model/0/kernel"}
    assert first[seed].tolist() == [7, 2]
    assert second[seed].tolist() == [8, 5]
    assert second["random/cpu"].dtype == "uint8"
    assert second["random/cpu"].tolist() == [3, 2, 1, 0]
    # A new process gets new draws.
    third = process_seeds.for_process(Apart("", index=2), saved)
    assert "random/cpu" not in third
    assert third[seed][0] not in (7, 8) and third[seed][1] == 2
    # A single program draws for all processes.
    assert process_seeds.for_process(Pair("", index=1), one) == one
    # A single process saves its arrays unchanged.
    assert process_seeds.with_all_processes(Strategy(), one) == one


@pytest.fixture(scope="module")
def records(tmp_path_factory):
    folder = tmp_path_factory.mktemp("records")
    rows = [streams.record("captions", i, samples=1) for i in range(10)]
    return streams.write(folder, rows, "captions")


def pretraining():
    objectives = ("mlm", "itm")
    task = kbt.BridgeTowerPretraining(
        shallow(),
        kbt.BridgeTowerPretrainingPreprocessor(
            tokenizer(), kbt.BridgeTowerImageConverter(SIDE), objectives
        ),
        objectives,
    )
    task.compile(keras.optimizers.SGD(0.1))
    return task


def stream(records, batch_size=4, **kwargs):
    values = {"remainder": "drop", "workers": 1} | kwargs
    return Stream(records, batch_size, transform("clip", SIDE), **values)


@FASTEST
def test_a_stream_is_shared_by_the_strategy(records):
    whole, shares = streams.ids(stream(records).batch(0)[0]), []
    for index in range(2):
        strategy = Pair("", index)
        own = strategy.share(stream(records))
        x, _ = own.batch(0)
        assert int(x["step"]) == index
        shares += streams.ids(x)
        # A stream that is already this process's share is accepted.
        same = strategy.share(stream(records, num_hosts=2, host=index))
        assert streams.ids(same.batch(0)[0]) == streams.ids(x)
        assert same.identity == own.identity
        # Its batches cannot be divided again.
        for batches in (
            strategy.batches(stream(records), epochs=1),
            own.dataset(epochs=1),
        ):
            assert {len(x["text"]) for x, _ in batches} == {2}
            with pytest.raises(ValueError, match="divided among processes"):
                Several().dataset(batches)
    assert shares == whole
    with pytest.raises(ValueError, match="num_hosts=4, host=3"):
        Pair("").share(stream(records, num_hosts=4, host=3))
    with pytest.raises(ValueError, match="batches of one known size"):
        Pair("").batches(stream(records, remainder="keep"))


@FASTEST
def test_replacements_for_bad_rows_differ_by_host(tmp_path):
    rows = [streams.record("captions", i, samples=1) for i in range(12)]
    rows[0] = streams.Record("k0", (b"",), rows[0].samples, "s")
    rows[2] = streams.Record("k2", (b"",), rows[2].samples, "s")
    made = streams.write_unchecked(tmp_path, rows, task="captions")
    whole = stream(made, order=Sequential(), max_bad_share=1.0)
    read = [streams.ids(whole.of_host(2, h).batch(0)[0]) for h in range(2)]
    assert len(set(sum(read, []))) == 4


@FASTEST
def test_matching_needs_two_rows_in_each_process(records, monkeypatch):
    task = pretraining()
    alone = stream(records, 1).dataset(epochs=1)
    check_partners(task, alone)
    monkeypatch.setattr(strategies.current(), "processes", 2, raising=False)
    check_partners(task, stream(records, 2).dataset(epochs=1))
    with pytest.raises(ValueError, match="one row in each of 2 processes"):
        task.fit(alone, verbose=0)
    # Masked tokens need no other row.
    task.preprocessor.objectives = ("mlm",)
    check_partners(task, alone)
