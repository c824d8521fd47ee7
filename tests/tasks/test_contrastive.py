"""The contrastive task: one space for texts, pictures and both."""

import numpy as np
import pytest
from builders import FASTEST
from builders import LONG_ELSEWHERE
from builders import array
from builders import contrastive
from builders import difference
from builders import fast
from builders import features
from builders import randomise
from builders import slow_on
from builders import some_everywhere

import keras_bridgetower as kbt
from keras_bridgetower.backend import backend_ops

IMAGE = np.zeros((20, 30, 3), "uint8")
KINDS = {"three_way": ("text", "image", "fused"), "two_way": ("text", "image")}


@pytest.fixture(scope="module")
def models():
    """Tasks that are asked but not changed."""
    return {ways: randomise(fast(contrastive(ways))) for ways in KINDS}


@pytest.fixture(scope="module")
def asked(models):
    return models["three_way"]


@pytest.mark.parametrize("ways", some_everywhere(KINDS, "three_way"))
def test_outputs_in_closed_form(ways, models):
    """Head and normalisation in NumPy, on states of the parts."""
    model, x = models[ways], features()
    towers, head = model.backbone, model.heads["itc"]
    text = towers.text_tower({k: x[k] for k in ("token_ids", "padding_mask")})
    image = towers.image_tower(x["images"])
    # Transformers projects the image state, the authors take it raw.
    projected = towers.fusion.project_image(image)
    states = {
        "text": text[-1][:, 0],
        "image": {"three_way": projected, "two_way": image}[ways][-1][:, 0],
        "fused": towers(x)["pooled"],
    }
    found = model(x, training=False)
    assert tuple(found) == KINDS[ways]
    for kind in KINDS[ways]:
        dense = getattr(head, f"{kind}_dense")
        expected = array(states[kind]) @ array(dense.kernel) + array(dense.bias)
        expected /= np.linalg.norm(expected, axis=1, keepdims=True)
        assert difference(found[kind], expected) <= 1e-5


@LONG_ELSEWHERE
def test_nothing_runs_that_is_not_read(monkeypatch):
    model = fast(contrastive())
    parts = model.backbone

    def refuse(*args, **kwargs):
        raise AssertionError("run though it is not read")

    monkeypatch.setattr(parts.fusion, "join", refuse)
    with monkeypatch.context() as patch:
        patch.setattr(parts.image_tower, "call", refuse)
        model.embed(texts="a")
    monkeypatch.setattr(parts.text_tower, "call", refuse)
    model.embed(images=IMAGE)
    with pytest.raises(AssertionError, match="not read"):
        model.embed(IMAGE, "a")


def test_without_ids_rows_of_other_replicas_are_negatives(asked, monkeypatch):
    monkeypatch.setattr(backend_ops, "all_gather", lambda x: (x, 6))
    found = {"text": np.zeros((3, 8), "float32")}
    assert array(asked.loss_inputs(None, found)[0]).tolist() == [6, 7, 8]
    assert asked.metric_inputs([4, 4, 5], found)[0] == [4, 4, 5]


@slow_on("tensorflow", "jax")
def test_as_a_vector_store_calls_it(asked):
    embedder = kbt.BridgeTowerEmbedder(asked, batch_size=2)
    texts, images = ["is it red?", "is it blue?", "why?"], [IMAGE] * 3
    documents = embedder.embed_documents(texts)
    assert [len(row) for row in documents] == [8, 8, 8]
    assert all(type(number) is float for row in documents for number in row)
    query = embedder.embed_query("is it blue?")
    np.testing.assert_allclose(query, documents[1], atol=1e-6)
    pairs = embedder.embed_image_text_pairs(texts, images)
    np.testing.assert_allclose(pairs, asked.embed(images, texts), atol=1e-6)
    assert embedder.embed_documents(np.array(texts)) == documents
    # Stores pass empty lists.
    assert embedder.embed_documents([]) == []
    assert embedder.embed_image_text_pairs([], []) == []


@FASTEST
def test_an_embedder_takes_lists(asked):
    embedder = kbt.BridgeTowerEmbedder(asked)
    pairs = embedder.embed_image_text_pairs
    for wrong in ("abc", b"abc", 3, None, {"a": 1}):
        for call, name in (
            (embedder.embed_documents, "texts"),
            (embedder.embed_images, "images"),
            (lambda x: pairs(x, [IMAGE]), "texts"),
            (lambda x: pairs(["a"], x), "images"),
        ):
            with pytest.raises(ValueError, match=f"`{name}` must be a list"):
                call(wrong)
