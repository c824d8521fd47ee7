"""Training of the photo presets, at a small size."""

import json

import keras
import keras_hub
import numpy as np
import pytest
from photo_world.training import model
from photo_world.training.batches import MASKED
from photo_world.training.batches import MOST_HIDDEN
from photo_world.training.batches import SCENES
from photo_world.training.batches import Batches
from photo_world.training.fusing import Fusion
from photo_world.training.pools import Pool
from photo_world.training.swapping import Swaps

import keras_bridgetower as kbt
from keras_bridgetower.encoders.classified import ClassifiedEncoder

WORDS = "a photo of cat car is this on the left red yes ? .".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
ANSWERS = ["yes", "no", "cat", "car"]
APART = {("cat", "car"), ("car", "cat")}


@pytest.fixture(scope="module")
def tokenizer():
    return kbt.BridgeTowerBertTokenizer(SPECIAL + WORDS, sequence_length=16)


@pytest.fixture
def pool(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {
            "sort": "alone",
            "nouns": [noun],
            "captions": [f"a photo of a {noun}", "a red photo"],
            "wrong": [f"a {noun} on the left"],
            "questions": [
                ["is this a cat ?", "yes" if noun == "cat" else "no", []],
                ["is this ?", noun, ["red", "yes"]],
            ],
        }
        for noun in ["cat", "car"] * SCENES
    ]
    for layer, width in enumerate((8, 16, 20)):
        states = rng.normal(size=(len(rows), 5, width)).astype("float16")
        np.save(tmp_path / f"states_{layer}.npy", states)
    (tmp_path / "rows.json").write_text(json.dumps(rows))
    return Pool(tmp_path)


@pytest.fixture
def batches(pool, tokenizer):
    vectors = np.random.default_rng(1).normal(size=(len(pool.rows), 4))
    names = [[f"noun{i}"] for i in range(20)]
    swaps = Swaps(names, np.random.default_rng(2).normal(size=(20, 4)))
    return Batches(pool, vectors, tokenizer, ANSWERS, APART, swaps)


def test_half_of_a_batch_is_like_the_other_half_and_apart(batches):
    for rows in batches.order(np.random.default_rng(0)):
        first, second = rows[: SCENES // 2], rows[SCENES // 2 :]
        assert (first % 2 != second % 2).all()  # Cats beside cars.
        assert np.array_equal(
            batches.are_apart(rows, rows), rows[:, None] % 2 != rows % 2
        )


def test_a_caption_is_there_again_with_hidden_tokens(batches, tokenizer):
    rng = np.random.default_rng(0)
    rows = batches.order(rng)[0]
    x, y = batches.make(rows, rng)
    said, masked = x["token_ids"][:MASKED], x["token_ids"][-MASKED:]
    hidden = masked == tokenizer.mask_token_id
    assert (hidden.sum(1) >= 1).all() and (hidden.sum(1) <= MOST_HIDDEN).all()
    assert np.array_equal(said[~hidden], masked[~hidden])
    for row in range(MASKED):
        count = hidden[row].sum()
        places = x["places"][row, :count]
        assert np.array_equal(said[row, places], y["mlm"][row, :count])
        assert (y["mlm"][row, count:] == -100).all()


def test_answers_that_are_right_as_well_count(batches):
    rng = np.random.default_rng(0)
    rows = np.arange(SCENES)
    _, y = batches.make(rows, rng)
    # "red" is no answer of the model.
    assert {tuple(scores) for scores in y["vqa"].tolist()} == {
        (1, 0, 0, 0),
        (0, 1, 0, 0),
        (1, 0, 1, 0),
        (1, 0, 0, 1),
    }


def test_a_step_trains_the_fusion_and_leaves_the_towers(batches, tokenizer):
    image = keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_squeeze_and_excite_ratios=[0] * 2,
        stackwise_kernel_sizes=[3] * 2,
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1"] * 2,
        input_shape=(8, 8, 3),
    )
    text = keras_hub.models.BertBackbone(
        vocabulary_size=tokenizer.vocabulary_size(),
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        max_sequence_length=16,
    )
    vqa, pairs = model.new_tasks(
        ClassifiedEncoder(image, 20),
        text,
        tokenizer,
        ANSWERS,
        names=None,
        hidden_dim=12,
        num_heads=2,
        intermediate_dim=12,
        taps=(-3, -2, -1, None),
        image_taps=(-4, -3, -1, None),
        image_positions=None,
    )
    learner = Fusion(vqa, pairs)
    learner.compile(keras.optimizers.Adam(1e-2))
    rng = np.random.default_rng(0)
    x, y = batches.make(batches.order(rng)[0], rng)
    parts = [
        *(vqa.backbone.text_tower, vqa.backbone.image_tower),
        *(pairs.heads["itc"], vqa.backbone.fusion),
        *(vqa.heads["vqa"], pairs.heads["itm"], pairs.heads["mlm"]),
    ]
    before = [part.get_weights() for part in parts]
    losses = [
        learner.train_on_batch(x, y, return_dict=True)["loss"] for _ in range(4)
    ]
    assert losses[-1] < losses[0]
    changed = [
        any(not np.array_equal(a, b) for a, b in zip(old, new, strict=True))
        for old, new in zip(
            before, [part.get_weights() for part in parts], strict=True
        )
    ]
    assert changed == [False] * 3 + [True] * 4


def test_frequent_words_all_characters_and_needed_words_are_kept(tokenizer):
    words = [*SPECIAL, "[unused1]", "a", "##b", "é", "the", "##ing", "rare"]
    kept = model.kept_words(words, lambda texts: [[8, 2]], ["é"], 2)
    assert [words[i] for i in kept] == [*SPECIAL, *"a ##b é the ##ing".split()]


def test_exchanged_classes_keep_what_is_alike():
    vectors = np.array([[1, 0], [0.9, 0.1], [0, 1], [0.1, 0.9]])
    swaps = Swaps([["owl"], ["hawk"], ["toaster"], ["oven"]], vectors)
    states = np.tile([0.7, 0.3, 0.0, 0.0, 5.0], (2, 3, 1)).astype("float32")
    seen = set()
    for seed in range(20):
        moved, texts, wrong = swaps.draw(states, np.random.default_rng(seed))
        for row in range(2):
            first = moved[row, 0, :4].argmax()
            noun = swaps.names[first][0]
            assert noun in texts[row] and noun not in wrong[row]
            # What is alike comes second.
            second = np.argsort(moved[row, 0, :4])[-2]
            assert {first, second} in ({0, 1}, {2, 3})
            seen.add(noun)
        assert (moved[..., 4] == 5.0).all()
        assert np.allclose(moved.sum(-1), states.sum(-1))
    assert seen == {"owl", "hawk", "toaster", "oven"}
