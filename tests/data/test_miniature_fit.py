"""Every original format, built, feeds a `fit` of its task."""

import functools

import keras
import numpy as np
import pytest
from builders import ONE_BACKEND
from builders import SIDE
from builders import shallow
from builders import tokenizer
from miniatures import built
from miniatures import opened

import keras_bridgetower as kbt
from keras_bridgetower.data.augment import transform
from keras_bridgetower.data.datasets import DATASETS
from keras_bridgetower.data.pipeline import Stream

pytest.importorskip("easy_vqa")
pytestmark = ONE_BACKEND


def texts():
    return tokenizer(sequence_length=60)


def converter():
    return kbt.BridgeTowerImageConverter(SIDE)


# Records of a task, and the model that learns from them, by its classes.
TASKS = {
    "vqa": lambda labels: kbt.BridgeTowerVQA(
        shallow(), kbt.BridgeTowerVQAPreprocessor(texts(), converter(), labels)
    ),
    "captions": lambda labels: kbt.BridgeTowerRetrieval(
        shallow(),
        kbt.BridgeTowerRetrievalPreprocessor(texts(), converter()),
    ),
    "entailment": lambda labels: kbt.BridgeTowerEntailment(
        shallow(),
        kbt.BridgeTowerEntailmentPreprocessor(texts(), converter()),
    ),
    "nlvr2": lambda labels: kbt.BridgeTowerNLVR2(
        shallow(), kbt.BridgeTowerNLVR2Preprocessor(texts(), converter())
    ),
    "image_classification": lambda labels: kbt.BridgeTowerImageClassifier(
        shallow(),
        kbt.BridgeTowerImageClassifierPreprocessor(converter(), labels),
    ),
    "text_classification": lambda labels: kbt.BridgeTowerTextClassifier(
        shallow(),
        kbt.BridgeTowerTextClassifierPreprocessor(texts(), labels),
    ),
}
# One format of each task is tried in every run, the others when asked for.
ALWAYS = ("vqav2", "coco", "snli_ve", "nlvr2", "cifar10", "glue")
WITHOUT_PICTURES = {"text_classification"}


@functools.cache
def model_of(task, labels):
    model = TASKS[task](list(labels))
    # Two steps take less time than tracing one would.
    model.compile(keras.optimizers.AdamW(1e-3), run_eagerly=True)
    return model


@pytest.mark.parametrize(
    "name",
    [
        *ALWAYS,
        *(
            pytest.param(name, marks=pytest.mark.slow)
            for name in DATASETS
            if name not in ALWAYS
        ),
    ],
)
def test_fit(name, tmp_path):
    data = opened(name, tmp_path / "originals")
    reader = built(data, tmp_path / "set", "train")
    change = transform("clip", SIDE)
    if reader.task in WITHOUT_PICTURES:
        change = None
    stream = Stream(reader, 2, change, remainder="drop")
    task = model_of(reader.task, tuple(reader.labels))
    history = task.fit(stream.dataset(), steps_per_epoch=2, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    assert not stream.report.bad
