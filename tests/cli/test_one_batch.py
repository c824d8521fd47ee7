"""One batch runs eagerly where compiling takes longer, with equal answers."""

import keras
import numpy as np
from builders import SIDE
from builders import vqa

from keras_bridgetower.backend import compiled


def test_one_batch_is_compiled_on_jax_alone():
    task = vqa()
    picture = np.full((SIDE, SIDE, 3), 128, "uint8")
    wanted = dict(task.answer(picture, "is it red?", top_k=4))
    compiled.run_once(task)
    assert compiled.is_eager(task) == (keras.config.backend() != "jax")
    found = dict(task.answer(picture, "is it red?", top_k=4))
    assert found.keys() == wanted.keys()
    for answer, score in found.items():
        np.testing.assert_allclose(score, wanted[answer], atol=1e-6)
