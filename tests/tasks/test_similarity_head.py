"""A matching head whose score starts from the contrastive vectors."""

import json

import builders
import keras
import numpy as np
import pytest
from builders import difference
from test_kept_states import TEXTS
from test_kept_states import pictures

import keras_bridgetower as kbt
from keras_bridgetower.models.exporting.exported import make_function
from keras_bridgetower.models.heads import SimilarityHead

MATCHING = "similarity_and_fused"
WORDS = "word_similarity_and_fused"


def retrieval(ways="two_way", matching=WORDS, **kwargs):
    values = {"projection_dim": 8, "ways": ways, "matching": matching}
    task = builders.retrieval(**values, **kwargs)
    builders.randomise(task.backbone)
    return task


def similarities(task):
    """Products of the vectors, which another task computes."""
    head = task.heads["itc"]
    contrastive = kbt.BridgeTowerContrastive(
        task.backbone, task.preprocessor, 8, ways=head.ways
    )
    contrastive.heads["itc"].set_weights(head.get_weights())
    # They are no longer random.
    contrastive.new_heads.restore({})
    return contrastive.embed(pictures()) @ contrastive.embed(texts=TEXTS).T


@builders.LONG_ELSEWHERE
@pytest.mark.parametrize("ways", ["two_way", "three_way"])
def test_an_untrained_score_is_the_similarity_times_the_scale(ways):
    task = retrieval(ways=ways)
    wanted = 30 * similarities(task)
    scores = task.rank(pictures(), TEXTS, verbose=0)
    assert difference(scores, wanted) <= 1e-4
    assert difference(task.score(pictures(), TEXTS), wanted.diagonal()) <= 1e-4
    task.divide_logits("itm", 2.0)
    again = task.score(pictures(), TEXTS)
    assert difference(again, wanted.diagonal() / 2) <= 1e-4


def trained(task):
    head = task.heads["itm"]
    kernel = head.output_dense.kernel
    kernel.assign(np.random.default_rng(0).normal(size=kernel.shape))
    if head.words:
        head.word_scale.assign(20.0)
    return task


def test_the_similarity_of_words_is_that_of_filip():
    head = SimilarityHead(1.0, words=True)
    rng = np.random.default_rng(0)
    x = {
        "pooled": np.zeros((2, 12), "float32"),
        "similarity": np.zeros(2, "float32"),
        "words": rng.normal(size=(2, 5, 6)).astype("float32"),
        "patches": rng.normal(size=(2, 4, 6)).astype("float32"),
        "padding_mask": np.array([[1, 1, 1, 1, 1], [1, 1, 1, 0, 0]], "int32"),
    }
    head(x)
    head.word_scale.assign(3.0)
    word, patch = (
        builders.array(layer.kernel)
        for layer in (head.word_dense, head.patch_dense)
    )
    wanted = []
    for row, count in enumerate((5, 3)):
        words = x["words"][row, 1:count] @ word
        patches = x["patches"][row, 1:] @ patch
        lengths = np.linalg.norm(words, axis=1)
        patches /= np.linalg.norm(patches, axis=1, keepdims=True)
        near = (words / lengths[:, None] @ patches.T).max(1)
        wanted.append(3 * np.average(near, weights=lengths))
    logits = builders.array(head(x))
    assert difference(logits[:, 1] - logits[:, 0], np.array(wanted)) <= 1e-5


@pytest.mark.parametrize("matching", [MATCHING, WORDS])
@builders.FASTEST
def test_all_ways_to_score_agree(matching):
    task = trained(retrieval(matching=matching))
    wanted = task.rank(pictures(), TEXTS, verbose=0)
    assert difference(wanted, 30 * similarities(task)) > 1
    listed = task.rank(pictures(), TEXTS, verbose=0, shortlist=5)
    assert difference(listed, wanted) <= 1e-4
    for column, text in enumerate(TEXTS):
        found = task.score_states(task.image_states(pictures()), text)
        assert difference(found, wanted[:, column]) <= 1e-4
    # As it would be exported.
    given = task.fusion_inputs(pictures(), TEXTS)
    logits = builders.array(make_function(task, "fusion")(given)["itm_logits"])
    assert difference(logits[:, 1] - logits[:, 0], wanted.diagonal()) <= 1e-4
    features = task.preprocessor({"images": pictures(), "text": TEXTS})
    features = keras.tree.map_structure(builders.array, features)
    logits = task.predict_features(features)
    assert difference(logits[:, 1] - logits[:, 0], wanted.diagonal()) <= 1e-4


@builders.slow_on("jax")
def test_scale_and_correction_are_trained():
    values = {"objective": "hard_negatives", **builders.one_layer_each()}
    task = builders.eager(retrieval(**values))
    x = {"images": pictures(), "text": TEXTS}
    moved = builders.moved(
        task, lambda: task.fit(x, [0, 1, 2, 3, 4], batch_size=5, verbose=0)
    )
    assert "itm_head/similarity_scale" in moved
    assert "itm_head/output_dense/kernel" in moved
    assert "itm_head/word_scale" in moved


@builders.FASTEST
def test_presets_name_the_head_where_it_is_no_default(tmp_path):
    task = trained(retrieval(**builders.one_layer_each()))
    task.new_heads.restore({})
    path = str(tmp_path / "p")
    task.save_to_preset(path)
    saved = json.loads((tmp_path / "p" / "heads.json").read_text())
    assert saved["itm"] == {"matching": WORDS}
    opened = kbt.BridgeTowerRetrieval.from_preset(path)
    assert opened.matching == WORDS
    wanted = task.score(pictures(), TEXTS)
    assert difference(opened.score(pictures(), TEXTS), wanted) <= 1e-5
    lists = kbt.BridgeTowerListRanking.from_preset(path, list_size=5)
    found = lists.predict({"images": [pictures()], "text": TEXTS[:1]})
    scores = task.rank(pictures(), TEXTS[:1], verbose=0)
    assert difference(found[0], scores[:, 0]) <= 1e-4
    names = ("itm", "itc")
    made = kbt.BridgeTowerPretraining.from_preset(path, objectives=names)
    assert made.matching == WORDS
    plain = builders.retrieval(projection_dim=8, **builders.one_layer_each())
    plain.save_to_preset(str(tmp_path / "q"))
    saved = json.loads((tmp_path / "q" / "heads.json").read_text())
    assert saved["itm"] == {}
    with pytest.raises(ValueError, match="`projection_dim` must be a width"):
        kbt.BridgeTowerRetrieval(builders.backbone(), matching=MATCHING)
    with pytest.raises(ValueError, match="`matching` must be one of"):
        builders.retrieval(projection_dim=8, matching="both")
