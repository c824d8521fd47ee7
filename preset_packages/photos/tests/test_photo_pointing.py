"""Test how often a word alone finds its thing."""

import numpy as np
import pytest
import tiny_photos
from builders import FASTEST
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import pointing

import keras_bridgetower as kbt

pytestmark = FASTEST


def test_words_find_the_places_of_their_classes():
    tokenizer = tiny_photos.tokenizer()
    _, pairs = model.new_tasks(
        *tiny_photos.encoders(tokenizer.vocabulary_size()),
        *(tokenizer, ["yes"]),
        names=None,
        **tiny_photos.FUSION,
    )
    assert isinstance(pairs, kbt.BridgeTowerPretraining)
    nouns = ("owl", "lemon")
    words = pointing.word_vectors(pairs, nouns)
    assert words.shape == (2, model.SPACE)
    # Places whose states are projected to the vectors of words.
    kernel = np.zeros(pairs.heads["itc"].image_dense.kernel.shape, "float32")
    kernel[:2] = words
    pairs.heads["itc"].image_dense.kernel.assign(kernel)
    places = np.zeros((1, 5, len(kernel)), "float32")
    places[0, 1:, 0], places[0, 1:, 1] = (3, 1, 3, 1), (1, 3, 1, 3)

    class Eyes:
        def states(self, pictures):
            return [places]

    for asked, share in (
        ([(0, "owl", "left"), (0, "lemon", "right")], 1.0),
        ([(0, "owl", "left"), (0, "lemon", "left")], 0.5),
    ):
        given = pairs, Eyes(), ["picture"], asked, words
        assert pointing.share_right(*given) == pytest.approx(share)
