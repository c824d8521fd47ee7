"""`model.export`: what is written agrees with the model, or is refused."""

import functools

import every_task
import exported_files
import numpy as np
import pytest
from builders import FASTEST
from builders import array
from builders import randomise
from builders import shallow
from every_task import TASKS
from exported_files import WRITTEN

from keras_bridgetower.models.checks import TOKEN_FEATURES
from keras_bridgetower.models.exporting.exported import FORMATS

# To export takes from 5 s up. Those that are quick enough, and hard: masks of
# another length than the text.
# Of a SavedModel and a PyTorch program a backbone is written elsewhere.
QUICK = {"onnx": "masked_lm", "litert": "vqa"}
# Rows and tokens, none of them those that were traced.
SIZES = ((4, 24), (1, 11), (2, 7))


def cells():
    for form in WRITTEN:
        for task in TASKS:
            slow = () if QUICK.get(form) == task else pytest.mark.slow
            yield pytest.param(task, form, marks=slow)


def features(model, task):
    made = every_task.features(task, model)
    inputs = {k: np.asarray(array(made[k])) for k in model.input}
    if "mask_positions" in inputs:
        # Places in the shortest text, of another number than was traced.
        inputs["mask_positions"] = inputs["mask_positions"][:, :6] % 7
    return inputs


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("task, form", cells())
def test_export(task, form, tmp_path):
    """Format"""
    exported_files.need(form)
    model = randomise(every_task.make(task))
    path = tmp_path / f"model{FORMATS[form].suffix}"
    model.export(path, format=form, verbose=False)
    inputs = features(model, task)
    for rows, tokens in SIZES:
        some = {
            k: v[:rows, :tokens] if k in TOKEN_FEATURES else v[:rows]
            for k, v in inputs.items()
        }
        expected = exported_files.by_name(model(some))
        found = exported_files.run(form, path, some)
        if form == "litert":
            # Its outputs have names of its own.
            expected, found = by_sum(expected), by_sum(found)
        assert set(found) == set(expected)
        for name, value in expected.items():
            np.testing.assert_allclose(found[name], value, atol=1e-5)


def by_sum(outputs):
    values = sorted(outputs.values(), key=lambda x: (x.shape, x.sum()))
    return dict(enumerate(values))


@FASTEST
def test_the_old_format_of_files():
    with pytest.raises(ValueError, match=r"must end with `.keras`.*'a.h5'"):
        shallow().save("a.h5")


@pytest.fixture(scope="module")
def made(any_backbone):
    """Each task once, of new weights."""
    return functools.cache(lambda name: every_task.make(name, any_backbone))


@pytest.mark.parametrize("form", [f for f in FORMATS if f not in WRITTEN])
@pytest.mark.parametrize("task", every_task.only("text_classifier"))
def test_elsewhere(task, form, made, tmp_path, refused):
    """Format"""
    with refused(f"format='{form}'` is written with KERAS_BACKEND set to one"):
        made(task).export(tmp_path / "model", format=form)
    assert not any(tmp_path.iterdir())
