"""Test fewer image tokens for the fusion."""

import keras
import numpy as np
import pytest
from builders import FASTEST
from builders import backbone
from builders import eager
from builders import features
from builders import moved
from builders import raw
from builders import retrieval
from builders import some_everywhere
from builders import vqa
from drawn_photos import draw

import keras_bridgetower as kbt
from keras_bridgetower.analysis import attention_map
from keras_bridgetower.analysis import relevance
from keras_bridgetower.apps.predict.identity import model_checksum
from keras_bridgetower.models.merged_tokens import merge_tokens
from keras_bridgetower.presets.errors import ConversionError

PRESET = "bridgetower_tiny_easy_retrieval"
TEXT = "a red circle"


def merged_by_loops(states, count):
    """`merge_tokens` of one picture, one token at a time."""
    groups = [[i] for i in range(len(states[-1]))]
    while len(groups) > count:
        means = [states[-1][group].mean(0) for group in groups]
        units = [mean / np.linalg.norm(mean) for mean in means]
        others = range(2, len(groups), 2)
        best = []
        for one in range(1, len(groups), 2):
            cosines = [units[one] @ units[other] for other in others]
            best.append((max(cosines), one, others[int(np.argmax(cosines))]))
        best.sort(reverse=True)
        gone = set()
        for _, one, other in best[: len(groups) - count]:
            groups[other] += groups[one]
            gone.add(one)
        groups = [g for i, g in enumerate(groups) if i not in gone]
    return [np.stack([state[g].mean(0) for g in groups]) for state in states]


SIZES = [(26, 6), (10, 9), (3, 2)]


@pytest.mark.parametrize("sizes", some_everywhere(SIZES, (26, 6), (3, 2)))
def test_merged_as_by_loops(sizes):
    tokens, count = sizes
    rng = np.random.default_rng(tokens)
    shapes = (2, 3, tokens, 8)
    states = [*rng.normal(size=shapes).astype("float32")]
    found = merge_tokens(states, count)
    for row in range(3):
        wanted = merged_by_loops([state[row] for state in states], count)
        for state, expected in zip(found, wanted, strict=True):
            state = keras.ops.convert_to_numpy(state[row])
            np.testing.assert_allclose(state, expected, atol=1e-5)


def test_a_picture_of_equal_tokens_has_the_same_outputs():
    """Attention to equal keys gives their value, however many there are."""
    whole, merged = backbone(), backbone(image_tokens=3)
    merged.set_weights(whole.get_weights())
    inputs = features()
    images = [
        keras.ops.repeat(x[:, :1], x.shape[1], axis=1)
        for x in whole.image_tower(inputs["images"])
    ]
    texts = whole.text_tower({k: inputs[k] for k in whole.text_tower.input})
    found = [
        model.fusion(texts, images, inputs["padding_mask"])
        for model in (whole, merged)
    ]
    assert [x["image"].shape[1] for x in found] == [17, 3]
    for name in ("text", "pooled"):
        whole, merged = (keras.ops.convert_to_numpy(x[name]) for x in found)
        np.testing.assert_allclose(merged, whole, atol=1e-5)


@FASTEST
def test_all_verbs_read_the_merged_tokens(tmp_path):
    whole = kbt.BridgeTowerRetrieval.from_preset(PRESET)
    merged = kbt.BridgeTowerRetrieval.from_preset(PRESET, image_tokens=20)
    pictures = list(
        np.random.default_rng(0).integers(0, 255, (5, 64, 64, 3), "uint8")
    )
    found = merged.score(pictures, TEXT)
    assert np.abs(found - whole.score(pictures, TEXT)).max() > 1e-3
    states = merged.image_states(pictures)
    assert states.shape[2] == 20
    np.testing.assert_allclose(
        merged.score_states(states, TEXT), found, atol=1e-4
    )
    assert model_checksum(merged) != model_checksum(whole)
    # Scores of one are not taken for those of the other.
    ranked = merged.rank(pictures, [TEXT, "a dot"], cache_dir=tmp_path)
    np.testing.assert_allclose(ranked[:, 0], found, atol=1e-4)
    with pytest.raises(ValueError, match="differs in .*'image_tokens'"):
        whole.rank(pictures, [TEXT, "a dot"], cache_dir=tmp_path)


@FASTEST
def test_an_index_of_merged_tokens_is_opened_again(tmp_path):
    pytest.importorskip("lancedb", reason="the extra `search`")
    preset = "bridgetower_tiny_easy_pretrain"
    models = kbt.search.SearchModels.from_preset(preset, image_tokens=20)
    search = kbt.search.PictureSearch(tmp_path / "index", models)
    search.index(draw(tmp_path / "photos"), states="int8")
    found = search.query(TEXT, rerank=4)
    search = kbt.search.PictureSearch(tmp_path / "index")
    assert search.query(TEXT, rerank=4) == found
    assert search.models.retrieval.image_states_shape[1] == 20


@FASTEST
def test_they_are_fewer_than_those_of_the_new_size(tmp_path):
    open_preset = kbt.BridgeTowerRetrieval.from_preset
    task = open_preset(PRESET, image_size=128, image_tokens=100)
    assert task.image_states_shape[1] == 100
    task.save_to_preset(tmp_path / "preset")
    again = open_preset(str(tmp_path / "preset"), image_size=64, image_tokens=9)
    assert again.image_states_shape[1] == 9
    with pytest.raises(ValueError, match="from 2 to below .* 65"):
        open_preset(PRESET, image_size=64, image_tokens=100)


@FASTEST
def test_saved_and_trained(tmp_path):
    task = vqa(image_tokens=3)
    task.save_to_preset(tmp_path / "preset")
    again = kbt.BridgeTowerVQA.from_preset(str(tmp_path / "preset"))
    assert again.backbone.fusion.image_tokens == 3
    x, y = raw()
    np.testing.assert_allclose(again.predict(x), task.predict(x), atol=1e-5)
    task = eager(task)
    kernel = task.backbone.fusion.image_projections[0].kernel
    assert kernel.path in moved(task, lambda: task.fit(x, y, verbose=0))


@FASTEST
def test_what_needs_all_patches_refuses(tmp_path):
    # As many as a square has patches, beside the first token.
    task = kbt.BridgeTowerRetrieval.from_preset(PRESET, image_tokens=17)
    picture = np.zeros((64, 64, 3), "uint8")
    for map_of in (attention_map, relevance):
        with pytest.raises(ValueError, match="image_tokens=17"):
            map_of(task, picture, TEXT)
    with pytest.raises(ConversionError, match="transformers"):
        retrieval(image_tokens=3).export_to_transformers(tmp_path / "folder")
    for wrong in (1, 65):
        with pytest.raises(ValueError, match="image_tokens"):
            kbt.BridgeTowerRetrieval.from_preset(PRESET, image_tokens=wrong)
    with pytest.raises(ValueError, match="does not run the fusion"):
        kbt.BridgeTowerImageClassifier.from_preset(
            PRESET, labels=["a", "b"], image_tokens=9, random_heads=True
        )
    with pytest.raises(ValueError, match="`image_tokens` must be an integer"):
        backbone(image_tokens=2.5)
