"""Test the rerankers within the installed packages."""

import base64
import math
import pathlib

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_retrieval"
QUERY = "a red circle"
GOOD = 3 * [(QUERY, np.zeros((8, 8, 3), "uint8"))]
COLORS = ("blue", "red", "green", "black")
pytestmark = FASTEST


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Paths of pictures, none of which is upright as a square."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [str(folder / f"{color}.png") for color in COLORS]
    for path in paths:
        Image.new("RGB", (40, 30), pathlib.Path(path).stem).save(path)
    return paths


@pytest.fixture(scope="module")
def reranker():
    return kbt.BridgeTowerReranker.from_preset(PRESET, batch_size=3)


@pytest.fixture(scope="module")
def scores(reranker, photos):
    return reranker.task.score(photos, QUERY)


@pytest.fixture(scope="module")
def order(scores):
    return np.argsort(-scores).tolist()


def importorskip(name):
    return pytest.importorskip(name, reason="the extra `integrations`")


def test_pairs_in_any_form(reranker, photos, scores):
    data = pathlib.Path(photos[0]).read_bytes()
    forms = [
        (QUERY, photos[0]),
        [QUERY, data],
        (Image.open(photos[0]), QUERY),
        (QUERY, base64.b64encode(data).decode()),
        ({"image": photos[0]}, QUERY),
        (photos[0], {"text": QUERY}),
        ({"text": QUERY}, {"image": np.asarray(Image.open(photos[0]))}),
    ]
    wanted = [scores[0]] * len(forms)
    found = reranker.predict(forms, batch_size=2)
    np.testing.assert_allclose(found, wanted, atol=1e-5)
    one = reranker.predict(forms[1])
    assert one.shape == ()
    np.testing.assert_allclose(one, scores[0], atol=1e-5)
    assert reranker.predict([]).shape == (0,)


def test_rank(reranker, photos, scores, order):
    found = reranker.rank(QUERY, photos, top_k=3, return_documents=True)
    assert [one["corpus_id"] for one in found] == order[:3]
    assert [one["text"] for one in found] == [photos[i] for i in order[:3]]
    np.testing.assert_allclose(
        [one["score"] for one in found], scores[order[:3]], atol=1e-5
    )
    texts = [QUERY, "a large blue square"]
    wanted = reranker.task.score(photos[0], texts)
    (best,) = reranker.rank({"image": photos[0]}, texts, top_k=1)
    assert best["corpus_id"] == wanted.argmax()
    told = [{"text": text} for text in texts]
    assert reranker.rank(photos[0], told, top_k=1) == [best]
    assert reranker.rank(QUERY, []) == []


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"inputs": [(QUERY, {"audio": "a"})]}, r"`inputs\[0\]` must be"),
        ({"inputs": [*GOOD, (QUERY, b"a")], "batch_size": 2}, r"`images\[3\]`"),
        ({"inputs": [(QUERY, b"a")], "batch_size": 0}, "`batch_size`"),
    ],
)
def test_bad_requests(reranker, given, message):
    with pytest.raises(ValueError, match=message):
        reranker.predict(**given)


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers(reranker, photos, scores, order, tmp_path):
    """A `CrossEncoder` opens the exported folder, and its evaluator runs."""
    theirs = importorskip("sentence_transformers")
    from sentence_transformers.cross_encoder import evaluation

    folder = str(tmp_path / "model")
    kbt.export_to_sentence_transformers(reranker.task, folder)
    with pytest.raises(ValueError, match="`folder` must not exist"):
        kbt.export_to_sentence_transformers(reranker.task, folder)
    with pytest.raises(ValueError, match="trust_remote_code"):
        theirs.CrossEncoder(folder)
    opened = theirs.CrossEncoder(folder, trust_remote_code=True)
    pictures = [Image.open(path) for path in photos]
    for given in (photos, pictures, [{"image": one} for one in pictures]):
        pairs = [(QUERY, one) for one in given]
        found = opened.predict(pairs, batch_size=3)
        np.testing.assert_allclose(found, scores, atol=1e-5)
        found = opened.rank(QUERY, given, top_k=3)
        assert [one["corpus_id"] for one in found] == order[:3]
        np.testing.assert_allclose(
            [one["score"] for one in found], scores[order[:3]], atol=1e-5
        )
    place = 2  # Of the picture that is called right, from 0.
    sample = {
        "query": QUERY,
        "positive": [photos[order[place]]],
        "negative": [photos[i] for i in order if i != order[place]],
    }
    evaluator = evaluation.CrossEncoderRerankingEvaluator(
        [sample], write_csv=False
    )
    found = evaluator(opened)
    assert found["mrr@10"] == pytest.approx(1 / (place + 1))
    assert found["ndcg@10"] == pytest.approx(1 / math.log2(place + 2))
    with pytest.raises(ValueError, match="`prompt` must be None"):
        opened.predict(pairs, prompt="query: ")
    with pytest.raises(ValueError, match="Only `model_kwargs`.*max_length"):
        theirs.CrossEncoder(folder, trust_remote_code=True, max_length=8)
    short = {"sequence_length": 4}
    opened = theirs.CrossEncoder(
        folder, trust_remote_code=True, model_kwargs=short
    )
    wanted = kbt.BridgeTowerReranker.from_preset(PRESET, **short)
    np.testing.assert_array_equal(opened.predict(pairs), wanted.predict(pairs))
    opened.save_pretrained(tmp_path / "again")
    again = theirs.CrossEncoder(str(tmp_path / "again"), trust_remote_code=True)
    assert again.max_seq_length == 4


def test_only_two_tasks_go_to_sentence_transformers(reranker, tmp_path):
    importorskip("sentence_transformers")
    backbone, folder = reranker.task.backbone, tmp_path / "model"
    for task, message in (
        (kbt.BridgeTowerNLVR2(backbone), "`task` must be"),
        (kbt.BridgeTowerRetrieval(backbone), "`preprocessor` must be set"),
    ):
        with pytest.raises(ValueError, match=message):
            kbt.export_to_sentence_transformers(task, folder)
    with pytest.warns(UserWarning, match="Newly initialized"):
        task = kbt.BridgeTowerRetrieval.from_preset(
            PRESET,
            objective="ranking_and_matching",
            matching="similarity_and_fused",
        )
    with pytest.raises(ValueError, match="newly initialized"):
        kbt.export_to_sentence_transformers(task, folder)
    assert not folder.exists()


def test_langchain(reranker, photos, scores, order):
    importorskip("langchain_core")
    from langchain_core.documents import Document

    from keras_bridgetower.apps.search.adapters import langchain

    documents = [
        Document("", metadata={"image": path, "id": i})
        for i, path in enumerate(photos)
    ]
    compressor = langchain.BridgeTowerCompressor(reranker=reranker, top_n=2)
    found = compressor.compress_documents(documents, QUERY)
    assert [one.metadata["id"] for one in found] == order[:2]
    np.testing.assert_allclose(
        [one.metadata["relevance_score"] for one in found],
        scores[order[:2]],
        atol=1e-5,
    )
    assert "relevance_score" not in documents[0].metadata
    with pytest.raises(ValueError, match=r"`documents\[1\]`.*'image'"):
        compressor.compress_documents([documents[0], Document("a")], QUERY)


def test_llama_index(photos, scores, order):
    importorskip("llama_index.core")
    from llama_index.core.schema import ImageNode
    from llama_index.core.schema import NodeWithScore
    from llama_index.core.schema import TextNode

    from keras_bridgetower.apps.search.adapters import llama_index

    rerank = llama_index.BridgeTowerRerank(preset=PRESET, top_n=2)
    data = base64.b64encode(pathlib.Path(photos[0]).read_bytes()).decode()
    nodes = [ImageNode(image=data), *(ImageNode(image_path=p) for p in photos)]
    nodes = [NodeWithScore(node=node, score=0.0) for node in nodes]
    found = rerank.postprocess_nodes(nodes[1:], query_str=QUERY)
    wanted = [nodes[1 + i].node.node_id for i in order[:2]]
    assert [one.node.node_id for one in found] == wanted
    np.testing.assert_allclose(
        [one.score for one in found], scores[order[:2]], atol=1e-5
    )
    (alone,) = rerank.postprocess_nodes(nodes[:1], query_str=QUERY)
    assert alone.score == pytest.approx(scores[0], abs=1e-5)
    with pytest.raises(ValueError, match=r"`nodes\[0\]`.*ImageNode"):
        text = NodeWithScore(node=TextNode(text="a"))
        rerank.postprocess_nodes([text], query_str=QUERY)
    with pytest.raises(ValueError, match="query_str"):
        rerank.postprocess_nodes(nodes)


def test_haystack(photos, scores, order):
    haystack = importorskip("haystack")
    from haystack.dataclasses import ByteStream

    from keras_bridgetower.apps.search.adapters.haystack import (
        BridgeTowerRanker,
    )

    pipeline = haystack.Pipeline()
    pipeline.add_component("ranker", BridgeTowerRanker(PRESET, top_k=2))
    pipeline = haystack.Pipeline.loads(
        pipeline.dumps(), allowed_modules=[BridgeTowerRanker.__module__]
    )
    documents = [
        haystack.Document(id=str(i), meta={"file_path": path})
        for i, path in enumerate(photos)
    ]
    data = pathlib.Path(photos[0]).read_bytes()
    documents[0] = haystack.Document(id="0", blob=ByteStream(data))

    def run(documents):
        given = {"query": QUERY, "documents": documents}
        return pipeline.run({"ranker": given})["ranker"]["documents"]

    found = run(documents)
    assert [one.id for one in found] == [str(i) for i in order[:2]]
    np.testing.assert_allclose(
        [one.score for one in found], scores[order[:2]], atol=1e-5
    )
    with pytest.raises(Exception, match=r"`documents\[0\]`.*'file_path'"):
        run([haystack.Document(content="a")])


def test_lancedb(reranker, photos, scores, order, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="the extra `search`")
    from keras_bridgetower.apps.search.adapters import lancedb as adapter

    rows = [
        {"path": path, "vector": [float(i), 1.0], "words": f"{QUERY} {i}"}
        for i, path in enumerate(photos)
    ]
    table = lancedb.connect(tmp_path).create_table("t", rows)
    by_pictures = adapter.BridgeTowerTableReranker(reranker)

    def check(search):
        found = search.to_list()
        assert [one["path"] for one in found] == [photos[i] for i in order]
        np.testing.assert_allclose(
            [one["_relevance_score"] for one in found], scores[order], atol=1e-5
        )
        return found

    near = table.search([0.0, 1.0]).limit(4)
    (first, *_) = check(near.rerank(by_pictures, query_string=QUERY))
    assert "_distance" not in first
    table.create_fts_index("words")
    check(table.search(QUERY, query_type="fts").limit(4).rerank(by_pictures))
    both = table.search(query_type="hybrid").vector([0.0, 1.0]).text(QUERY)
    check(both.limit(4).rerank(by_pictures))
