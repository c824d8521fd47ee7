"""`fit` on the original files of every data set, by records and streams."""

import functools

import numpy as np
import pytest
from builders import FASTEST
from builders import SIDE
from builders import preprocessor
from builders import shallow
from builders import tokenizer
from miniatures import WRITERS
from miniatures import miniature

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write as writing
from keras_bridgetower.data.stream.stream import Stream

pytest.importorskip("easy_vqa")
pytestmark = FASTEST


def parts():
    return tokenizer(60), kbt.BridgeTowerImageConverter(SIDE)


def retrieval(labels):
    built = kbt.BridgeTowerRetrievalPreprocessor(*parts())
    return kbt.BridgeTowerRetrieval(shallow(), built)


def vqa(labels):
    return kbt.BridgeTowerVQA(shallow(), preprocessor(labels))


def entailment(labels):
    assert labels == ["contradiction", "neutral", "entailment"]
    built = kbt.BridgeTowerEntailmentPreprocessor(*parts())
    return kbt.BridgeTowerEntailment(shallow(), built)


def nlvr2(labels):
    assert labels == ["False", "True"]
    built = kbt.BridgeTowerNLVR2Preprocessor(*parts())
    return kbt.BridgeTowerNLVR2(shallow(), built)


def image_classifier(labels):
    built = kbt.BridgeTowerImageClassifierPreprocessor(parts()[1], labels)
    return kbt.BridgeTowerImageClassifier(shallow(), built)


def text_classifier(labels):
    built = kbt.BridgeTowerTextClassifierPreprocessor(parts()[0], labels)
    return kbt.BridgeTowerTextClassifier(shallow(), built)


TASKS = {
    "captions": retrieval,
    "vqa": vqa,
    "entailment": entailment,
    "nlvr2": nlvr2,
    "image_classification": image_classifier,
    "text_classification": text_classifier,
}


@functools.cache
def task_for(kind, labels):
    """One model for all data sets of a task and its labels."""
    task = TASKS[kind](list(labels))
    task.compile("adamw", run_eagerly=True)
    return task


@pytest.fixture(scope="module", autouse=True)
def _models():
    yield
    task_for.cache_clear()


# Long captions of the miniatures are truncated, as in COCO.
@pytest.mark.filterwarnings("ignore:.* texts cut")
@pytest.mark.parametrize("name", WRITERS)
def test_every_data_set_trains_its_task(name, tmp_path):
    if name.startswith("arrow"):
        pytest.importorskip("pyarrow")
    root, options = miniature(name, tmp_path / "originals")
    data = open_dataset(name, root, **options)
    writing.write_shards(
        tmp_path / "set",
        "train",
        data.split("train", "honest"),
        task=data.task,
        labels=data.labels,
        definition="miniature",
        num_shards=2,
    )
    reader = read.open_records(tmp_path / "set", "train")
    change = transform("blip_randaug_wc", SIDE)
    pictured = data.task != "text_classification"
    stream = Stream(
        reader, 4, change if pictured else None, remainder="drop", seed=1
    )
    task = task_for(data.task, tuple(stream.labels))
    # A shuffled epoch has every sample, whatever the format.
    whole = Stream(reader, 4, change if pictured else None)
    rows = [whole.batch(n)[1] for n in range(whole.steps_per_epoch)]
    assert sum(map(len, rows)) == reader.num_samples
    history = task.fit(stream.dataset(), steps_per_epoch=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert not stream.report.bad and not whole.report.bad
