"""A task from two encoders: the folders of `transformers`, and nothing else."""

import numpy as np
import pytest
import transformers
from builders import LONG_ELSEWHERE
from builders import difference
from builders import raw
from builders import run
from peers_first import IMAGE
from peers_first import TEXT

import keras_bridgetower as kbt

pytestmark = LONG_ELSEWHERE

SIZES = dict(hidden_dim=16, num_heads=2, num_layers=2)


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """An image encoder and a text encoder, each with its preprocessing."""
    root = tmp_path_factory.mktemp("encoders")
    config = transformers.ViTConfig(**IMAGE)
    transformers.ViTModel(config).save_pretrained(root / "image")
    transformers.ViTImageProcessorPil(
        size={"height": 32, "width": 32}, image_mean=[0.5] * 3
    ).save_pretrained(root / "image")
    words = "[PAD] [UNK] [CLS] [SEP] [MASK] is it red blue or what ?".split()
    config = transformers.BertConfig(**{**TEXT, "vocab_size": len(words)})
    transformers.BertModel(config).save_pretrained(root / "text")
    vocabulary = {word: i for i, word in enumerate(words)}
    transformers.BertTokenizer(vocabulary).save_pretrained(root / "text")
    return root / "image", root / "text"


def test_a_task_from_two_encoders_answers_after_training(folders, tmp_path):
    vqa = kbt.BridgeTowerVQA.from_encoders(
        *folders, answers=["yes", "no"], sequence_length=12, **SIZES
    )
    assert vqa.preprocessor.image_converter.mean == (0.5, 0.5, 0.5)
    assert vqa.backbone.fusion.hidden_dim == 16
    x, _ = raw()
    with pytest.raises(ValueError, match="newly initialized"):
        vqa.answer(x["images"], x["text"])
    vqa.compile("adam")
    losses = vqa.fit(
        x, ["yes", "no", "no", "yes"], batch_size=4, epochs=2, verbose=0
    ).history["loss"]
    assert losses[-1] < losses[0]
    answers = vqa.answer(x["images"], x["text"])
    vqa.save_to_preset(tmp_path / "vqa")
    again = kbt.BridgeTowerVQA.from_preset(tmp_path / "vqa")
    assert again.answer(x["images"], x["text"]) == answers


@pytest.mark.parametrize(
    "cls, values",
    [
        (kbt.BridgeTowerMaskedLM, {}),
        (kbt.BridgeTowerImageClassifier, {"labels": ["a", "b"]}),
    ],
)
def test_other_tasks(cls, values, folders):
    task = cls.from_encoders(*folders, **SIZES, **values)
    made = task.preprocessor(raw()[0])
    made = made[0] if isinstance(made, tuple) else made
    out = run(task, made)
    out = out if isinstance(out, dict) else {"out": out}
    assert all(np.isfinite(np.asarray(x)).all() for x in out.values())


def test_the_weights_are_those_of_the_encoders(folders):
    from keras_bridgetower.convert import unimodal

    vqa = kbt.BridgeTowerVQA.from_encoders(*folders, answers=["a"], **SIZES)
    encoders = (
        unimodal.image_encoder(folders[0]),
        unimodal.text_encoder(folders[1]),
    )
    own = (vqa.backbone.image_encoder, vqa.backbone.text_encoder)
    for ours, other in zip(own, encoders, strict=True):
        for a, b in zip(ours.weights, other.weights, strict=True):
            assert difference(a, b) == 0


def test_unknown_keywords_are_rejected(folders):
    with pytest.raises(TypeError, match="hidden_size"):
        kbt.BridgeTowerVQA.from_encoders(*folders, hidden_size=3)
