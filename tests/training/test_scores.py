"""Scores of damaged data, and of data with other classes."""

import io
import types

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image
from streams import LABELS
from streams import record
from streams import write

import keras_bridgetower as kbt
from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records.format import Record
from keras_bridgetower.data.records.format import Sample
from keras_bridgetower.distribution.distribute import distribute
from keras_bridgetower.training import evaluate
from keras_bridgetower.training import train
from keras_bridgetower.training.recipes import RECIPES

pytestmark = FASTEST
SAMPLES, DAMAGED = 1024, 5


def grainy(value):
    """A PNG of nearly one gray, too grainy to be small."""
    grain = np.random.default_rng(0).integers(0, 50, (24, 24, 3))
    file = io.BytesIO()
    array = np.abs(value - grain).astype("uint8")
    Image.fromarray(array).save(file, "PNG")
    return file.getvalue()


class Oracle:
    """Reads the label from the first picture, which is white for true."""

    def predict(self, data, verbose):
        whites = [
            np.asarray(batch[0]["images"])[:, 0].mean((1, 2, 3)) > 127
            for batch in data
        ]
        return np.eye(2)[np.concatenate(whites).astype(int)]


def test_a_damaged_picture_shifts_no_prediction(tmp_path):
    labels = np.random.default_rng(0).integers(0, 2, SAMPLES)
    records = []
    for number, label in enumerate(labels.tolist()):
        first = grainy(255 * label)
        if number == DAMAGED:
            first = first[: len(first) // 2]
        sample = Sample(f"dev-{number}-0-0", "both are white", (label,))
        records.append(
            Record(f"k{number}", (first, grainy(0)), (sample,), "own")
        )
    reader = write(tmp_path, records, "nlvr2")
    recipe = RECIPES["nlvr2_base"].replace(
        image_size=32, batch_size=32, accumulation=1
    )
    found = evaluate.score_split(Oracle(), recipe, reader, distribute("none"))
    assert found["accuracy"] == 100


def test_entailment_labels_in_another_order_are_rejected(tmp_path):
    """Reject them, since class 1 would not be neutral."""
    task = kbt.BridgeTowerEntailment.from_preset(
        "bridgetower_tiny_easy_entailment"
    )
    order = sorted(LABELS["entailment"])
    assert order != task.class_names
    rows = [record("entailment", i) for i in range(4)]
    write(tmp_path / "set", rows, "entailment", labels=order)
    message = "must have the classes of the task, in the same order"
    with pytest.raises(ValueError, match=message):
        evaluate.run(
            "bridgetower_tiny_easy_entailment", tmp_path / "set", ["train"]
        )
    recipe = RECIPES["snli_ve_base"]
    settings = types.SimpleNamespace(
        data=[tmp_path / "set"],
        seed=0,
        distribute="none",
        shard_devices=None,
        gradient_dtype=None,
        max_bad_share=0.0,
        window=16,
        lanes=None,
    )
    recipe = recipe.replace(batch_size=4, accumulation=1, epochs=1)
    with pytest.raises(ValueError, match=message):
        train.run(recipe, settings, start=lambda *arguments: task)


def test_labels_of_own_tables_are_in_the_order_of_the_task(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    names = ["neutral", "entailment"]
    rows = "".join(f"a.png,it is so,{name}\n" for name in names)
    (tmp_path / "train.csv").write_text("image,text,label\n" + rows)
    data = open_dataset("own", tmp_path)
    assert data.labels == LABELS["entailment"]
    (draft,) = data.split("train")
    assert [data.labels[s.labels[0]] for s in draft.samples] == names
    with pytest.raises(ValueError, match="one of .*'entailment' in row 2"):
        list(open_dataset("own", tmp_path, labels="neutral").split("train"))


def test_places_of_samples_in_two_processes():
    """Batches of four, of which each process pads its part at the end."""
    whole = evaluate._places(6, 4, 2, set())
    assert [*whole.values()] == [0, 1, 2, 3, 4, 6]
    assert evaluate._places(5, 4, 2, {0}) == {1: 0, 2: 2, 3: 3, 4: 6}
