"""`model.export`: what is written agrees with the model, or is refused."""

import every_task
import keras
import numpy as np
import pytest
from builders import array
from builders import shallow
from every_task import TASKS

from keras_bridgetower.models.exporting import FORMATS
from keras_bridgetower.models.exporting import WRONG

BACKEND = keras.config.backend()
ENDINGS = {"litert": ".tflite", "torch": ".pt2", "tf_saved_model": ""}
WRITTEN = [name for name, backends in FORMATS.items() if BACKEND in backends]
# To export takes from 20 s up.
EACH = [pytest.param(name, marks=pytest.mark.slow) for name in TASKS]


def saved_model(path, inputs):
    import tensorflow as tf

    loaded = tf.saved_model.load(path)
    made = loaded.serve({k: tf.constant(v) for k, v in inputs.items()})
    return [x.numpy() for x in keras.tree.flatten(made)]


def litert(path, inputs):
    import tensorflow as tf

    run = tf.lite.Interpreter(path).get_signature_runner()
    return list(run(**inputs).values())


def exported_program(path, inputs):
    import torch

    run = torch.export.load(path).module()
    made = run({k: torch.from_numpy(v) for k, v in inputs.items()})
    return [x.detach().numpy() for x in keras.tree.flatten(made)]


READ = {
    "tf_saved_model": saved_model,
    "litert": litert,
    "torch": exported_program,
}


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("form", WRITTEN)
@pytest.mark.parametrize("task", EACH)
def test_export(task, form, tmp_path, refused):
    """`export` as SavedModel, LiteRT and PyTorch program"""
    model = every_task.build(task)
    made = model.preprocess_samples(every_task.raw(task))
    made = made[0] if isinstance(made, tuple) else made
    rows = 1 if form == "torch" else 3
    inputs = {k: np.asarray(array(made[k]))[:rows] for k in model.input}
    if "mask_positions" in inputs and not getattr(
        model.preprocessor, "max_masks", None
    ):
        # As many as tokens.
        inputs["mask_positions"] = np.zeros_like(inputs["token_ids"])
    path = str(tmp_path / f"model{ENDINGS[form]}")
    if task == "pretraining" and form != "torch":
        with refused("outputs that are tensors.*Export the task that reads"):
            model.export(path, format=form, verbose=False)
        return
    expected = [array(x) for x in keras.tree.flatten(model(inputs))]
    model.export(path, format=form, verbose=False)
    found = READ[form](path, inputs)
    assert len(found) == len(expected)
    if form == "litert":
        # Its outputs have no order.
        expected, found = (
            sorted(xs, key=lambda x: (x.shape, x.sum()))
            for xs in (expected, found)
        )
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


@pytest.mark.skipif(BACKEND != "torch", reason="the same code everywhere")
def test_the_old_format_of_files():
    for model in (shallow(), every_task.build("text_regressor")):
        with pytest.raises(ValueError, match=r"must end with `.keras`.*'a.h5'"):
            model.save("a.h5")


@pytest.mark.parametrize("form", [*FORMATS, *WRONG, "another"])
def test_refused(form, tmp_path, record_property):
    """`export` in other formats"""
    if form in WRITTEN:
        pytest.skip("this backend writes it")
    with pytest.raises(ValueError, match="format.*one of.*Received: format="):
        shallow().export(tmp_path / "model", format=form)
    record_property("outcome", "refused: it says which format to take")
