"""Test the adapters within the installed packages."""

import asyncio
import base64
import concurrent.futures
import functools
import io
import math
import pathlib

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_contrastive"
RANKING = "bridgetower_tiny_easy_retrieval"
TEXTS = ["a red circle", "a large blue square in the north."]
QUERY = TEXTS[0]
COLORS = ("red", "blue", "green", "black")
pytestmark = FASTEST


@pytest.fixture(scope="module", autouse=True)
def opened_once():
    """Presets and exported folders, which the adapters open by name."""
    with pytest.MonkeyPatch.context() as patch:
        for cls in (kbt.BridgeTowerContrastive, kbt.BridgeTowerRetrieval):
            patch.setattr(cls, "from_preset", functools.cache(cls.from_preset))
        yield


@pytest.fixture(scope="module")
def photos(tmp_path_factory):
    """Paths of pictures, none of which is upright as a square."""
    folder = tmp_path_factory.mktemp("photos")
    paths = [str(folder / f"{color}.png") for color in COLORS]
    for path in paths:
        Image.new("RGB", (40, 30), pathlib.Path(path).stem).save(path)
    return paths


@pytest.fixture(scope="module")
def task():
    return kbt.BridgeTowerContrastive.from_preset(PRESET)


@pytest.fixture(scope="module")
def vectors(task, photos):
    """Of the texts, and of the pictures."""
    return task.embed(texts=TEXTS), task.embed(images=photos)


@pytest.fixture(scope="module")
def reranker():
    return kbt.BridgeTowerReranker.from_preset(RANKING, batch_size=3)


@pytest.fixture(scope="module")
def scores(reranker, photos):
    return reranker.task.score(photos, QUERY)


@pytest.fixture(scope="module")
def order(scores):
    return np.argsort(-scores).tolist()


def importorskip(name):
    return pytest.importorskip(name, reason="the extra `integrations`")


def run(coroutine):
    """Run in a thread of its own: other tests may leave a loop running here."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return pool.submit(asyncio.run, coroutine).result()


def check(found, wanted):
    np.testing.assert_allclose(np.array(found), wanted, atol=1e-5)


def test_langchain(vectors, reranker, photos, scores, order):
    stores = importorskip("langchain_core.vectorstores")
    from langchain_core.documents import Document
    from langchain_core.embeddings import Embeddings

    from keras_bridgetower.apps.search.adapters import langchain

    embeddings = langchain.BridgeTowerEmbeddings.from_preset(PRESET)
    assert isinstance(embeddings, Embeddings)
    wanted, _ = vectors
    check(run(embeddings.aembed_documents(TEXTS)), wanted)
    store = stores.InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS)
    (found,) = store.similarity_search(TEXTS[1], k=1)
    assert found.page_content == TEXTS[1]

    documents = [
        Document("", metadata={"image": path, "id": i})
        for i, path in enumerate(photos)
    ]
    compressor = langchain.BridgeTowerCompressor(reranker=reranker, top_n=2)
    found = compressor.compress_documents(documents, QUERY)
    assert [one.metadata["id"] for one in found] == order[:2]
    check([x.metadata["relevance_score"] for x in found], scores[order[:2]])
    assert "relevance_score" not in documents[0].metadata
    with pytest.raises(ValueError, match=r"`documents\[1\]`.*'image'"):
        compressor.compress_documents([documents[0], Document("a")], QUERY)


def test_llama_index(vectors, photos, scores, order):
    importorskip("llama_index.core")
    from llama_index.core.embeddings import MultiModalEmbedding
    from llama_index.core.schema import ImageNode
    from llama_index.core.schema import NodeWithScore
    from llama_index.core.schema import TextNode

    from keras_bridgetower.apps.search.adapters import llama_index

    model = llama_index.BridgeTowerMultiModalEmbedding(preset=PRESET)
    assert isinstance(model, MultiModalEmbedding)
    texts, images = vectors
    check(model.get_text_embedding_batch(TEXTS), texts)
    check(model.get_image_embedding_batch(photos), images)
    data = pathlib.Path(photos[1]).read_bytes()
    check(model.get_image_embedding(io.BytesIO(data)), images[1])
    check(run(model.aget_query_embedding(TEXTS[0])), texts[0])
    check(run(model.aget_text_embedding(TEXTS[1])), texts[1])
    check(run(model.aget_image_embedding(photos[0])), images[0])

    rerank = llama_index.BridgeTowerRerank(preset=RANKING, top_n=2)
    alone = ImageNode(image=base64.b64encode(data).decode())
    nodes = [alone, *(ImageNode(image_path=path) for path in photos)]
    nodes = [NodeWithScore(node=node, score=0.0) for node in nodes]
    found = rerank.postprocess_nodes(nodes[1:], query_str=QUERY)
    wanted = [nodes[1 + i].node.node_id for i in order[:2]]
    assert [one.node.node_id for one in found] == wanted
    check([one.score for one in found], scores[order[:2]])
    (found,) = rerank.postprocess_nodes(nodes[:1], query_str=QUERY)
    check(found.score, scores[1])
    with pytest.raises(ValueError, match=r"`nodes\[0\]`.*ImageNode"):
        text = NodeWithScore(node=TextNode(text="a"))
        rerank.postprocess_nodes([text], query_str=QUERY)
    with pytest.raises(ValueError, match="query_str"):
        rerank.postprocess_nodes(nodes)


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers(task, vectors, photos, tmp_path):
    theirs = importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import evaluation

    folder = str(tmp_path / "model")
    kbt.export_to_sentence_transformers(task, folder)
    model = theirs.SentenceTransformer(folder, trust_remote_code=True)
    texts, images = vectors
    pictures = [Image.open(path) for path in photos[:2]]
    both = zip(TEXTS, pictures, strict=True)
    pairs = [{"text": text, "image": picture} for text, picture in both]
    check(model.encode(TEXTS, batch_size=1), texts)
    check(model.encode_query(TEXTS[0]), texts[0])
    check(model.encode_document(photos), images)
    check(model.encode(pictures), images[:2])
    check(model.encode(pairs), task.embed(photos[:2], TEXTS))
    check(model.similarity(texts, images), texts @ images.T)
    assert model.get_embedding_dimension() == task.projection_dim
    far = "ab"[np.argmin(images[:2] @ texts[0])]
    shown = dict(zip("ab", photos[:2], strict=True))
    evaluator = evaluation.InformationRetrievalEvaluator(
        {"q": TEXTS[0]}, shown, {"q": {far}}, write_csv=False
    )
    # The picture that is called right is the second.
    assert evaluator(model)["cosine_mrr@10"] == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="mixes multiple modalities"):
        model.encode([TEXTS[0], pictures[0]])


@pytest.mark.filterwarnings("ignore")
def test_cross_encoder_of_sentence_transformers(
    reranker, photos, scores, order, tmp_path
):
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
        check(opened.predict(pairs, batch_size=3), scores)
        found = opened.rank(QUERY, given, top_k=3)
        assert [one["corpus_id"] for one in found] == order[:3]
        check([one["score"] for one in found], scores[order[:3]])
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
    wanted = kbt.BridgeTowerReranker.from_preset(RANKING, **short)
    np.testing.assert_array_equal(opened.predict(pairs), wanted.predict(pairs))
    opened.save_pretrained(tmp_path / "again")
    again = theirs.CrossEncoder(str(tmp_path / "again"), trust_remote_code=True)
    assert again.max_seq_length == 4


def test_only_two_tasks_go_to_sentence_transformers(reranker, tmp_path):
    importorskip("sentence_transformers")
    backbone, folder = reranker.task.backbone, tmp_path / "model"
    values = dict(
        objective="ranking_and_matching", matching="similarity_and_fused"
    )
    with pytest.warns(UserWarning, match="Newly initialized"):
        random = kbt.BridgeTowerRetrieval.from_preset(RANKING, **values)
    for task, message in (
        (kbt.BridgeTowerNLVR2(backbone), "`task` must be"),
        (kbt.BridgeTowerRetrieval(backbone), "`preprocessor` must be set"),
        (random, "newly initialized"),
    ):
        with pytest.raises(ValueError, match=message):
            kbt.export_to_sentence_transformers(task, folder)
    assert not folder.exists()


def test_haystack(photos, scores, order):
    haystack = importorskip("haystack")
    from haystack.dataclasses import ByteStream

    from keras_bridgetower.apps.search.adapters.haystack import (
        BridgeTowerRanker,
    )

    pipeline = haystack.Pipeline()
    pipeline.add_component("ranker", BridgeTowerRanker(RANKING, top_k=2))
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
    check([one.score for one in found], scores[order[:2]])
    with pytest.raises(Exception, match=r"`documents\[0\]`.*'file_path'"):
        run([haystack.Document(content="a")])


def test_lancedb(vectors, reranker, photos, scores, order, tmp_path):
    lancedb = pytest.importorskip("lancedb", reason="the extra `search`")
    from lancedb.embeddings import get_registry
    from lancedb.pydantic import LanceModel
    from lancedb.pydantic import Vector

    from keras_bridgetower.apps.search.adapters import lancedb as adapter

    function = get_registry().get("bridgetower").create(preset=PRESET)
    assert isinstance(function, adapter.BridgeTowerFunction)

    class Photo(LanceModel):
        path: str = function.SourceField()
        vector: Vector(function.ndims()) = function.VectorField()

    table = lancedb.connect(tmp_path / "db").create_table("t", schema=Photo)
    table.add([{"path": path} for path in photos])
    texts, images = vectors
    check(table.to_arrow()["vector"].to_pylist(), images)
    # Opened anew, the table finds the function by its name.
    table = lancedb.connect(tmp_path / "db").open_table("t")
    (found,) = table.search(QUERY).limit(1).to_pydantic(Photo)
    assert found.path == photos[int(np.argmax(images @ texts[0]))]
    picture = Image.open(photos[1])
    (found,) = table.search(picture).limit(1).to_pydantic(Photo)
    assert found.path == photos[1]

    rows = [
        {"path": path, "vector": [float(i), 1.0], "words": f"{QUERY} {i}"}
        for i, path in enumerate(photos)
    ]
    table = lancedb.connect(tmp_path / "db").create_table("ranked", rows)
    by_pictures = adapter.BridgeTowerTableReranker(reranker)
    table.create_fts_index("words")
    words = table.search(QUERY, query_type="fts").limit(4)
    both = table.search(query_type="hybrid").vector([0.0, 1.0]).text(QUERY)
    near = table.search([0.0, 1.0]).limit(4)
    for search in (
        near.rerank(by_pictures, query_string=QUERY),
        words.rerank(by_pictures),
        both.limit(4).rerank(by_pictures),
    ):
        found = search.to_list()
        assert [one["path"] for one in found] == [photos[i] for i in order]
        check([one["_relevance_score"] for one in found], scores[order])
        assert "_distance" not in found[0]


def test_chroma(vectors, photos, tmp_path):
    chromadb = importorskip("chromadb")
    from keras_bridgetower.apps.search.adapters import chroma

    function = chroma.BridgeTowerChromaFunction(PRESET)
    red = np.asarray(Image.open(photos[0]))
    texts, (image, *_) = vectors
    check(function([TEXTS[0], red, TEXTS[1]]), [texts[0], image, texts[1]])
    settings = chromadb.Settings(anonymized_telemetry=False)

    def client():
        return chromadb.PersistentClient(str(tmp_path / "db"), settings)

    collection = client().create_collection(
        "photos", embedding_function=function
    )
    collection.add(ids=["text"], documents=[TEXTS[1]])
    collection.add(ids=["picture"], images=[red])
    found = collection.get(include=["embeddings"], ids=["text", "picture"])
    by_id = dict(zip(found["ids"], found["embeddings"], strict=True))
    check(by_id["text"], texts[1])
    check(by_id["picture"], image)
    # Opened anew, the collection makes the function from its values.
    again = client().get_collection("photos")
    found = again.query(query_texts=[TEXTS[1]], n_results=1)
    assert found["ids"] == [["text"]]


def test_the_embedder_takes_pictures_in_any_form(
    task, photos, tmp_path, monkeypatch
):
    embedder = kbt.BridgeTowerEmbedder(task)
    data = pathlib.Path(photos[0]).read_bytes()
    text = base64.b64encode(data).decode()
    forms = [
        photos[0],
        pathlib.Path(photos[0]),
        data,
        Image.open(photos[0]),
        text,
        "\n".join([text[:76], text[76:]]),
        base64.urlsafe_b64encode(data).decode().rstrip("="),
        f"data:image/png;base64,{text}",
    ]
    wanted = task.embed(images=photos[0])
    check(embedder.embed_images(forms), [wanted] * len(forms))
    pair = task.embed(photos[0], TEXTS[0])
    found = embedder.embed_image_text_pairs([TEXTS[0]] * 3, forms[-3:], 2)
    check(found, [pair] * 3)
    assert embedder.embed_images([]) == []
    # A path that looks like base64.
    monkeypatch.chdir(tmp_path)
    path = pathlib.Path("iVBORw0KGgoAAAANSUhEUgAAACgAAAAe")
    path.write_bytes(data)
    check(embedder.embed_images([str(path)]), [wanted])
    short = kbt.BridgeTowerEmbedder.from_preset(PRESET, sequence_length=12)
    wanted = task.embed(texts=TEXTS[0], sequence_length=12)
    check(short.embed_query(TEXTS[0]), wanted)
    damaged = text[:-9] + "*" + text[-8:]
    with pytest.raises(ValueError, match=r"`images\[1\]`"):
        embedder.embed_images([photos[1], damaged])
    with pytest.raises(ValueError, match="must be a file that exists"):
        embedder.embed_images(["no/such.png"])


def test_pairs_in_any_form(reranker, photos, scores):
    data = pathlib.Path(photos[0]).read_bytes()
    forms = [
        (QUERY, photos[0]),
        [QUERY, data],
        (Image.open(photos[0]), QUERY),
        ({"image": photos[0]}, QUERY),
        (photos[0], {"text": QUERY}),
        ({"text": QUERY}, {"image": np.asarray(Image.open(photos[0]))}),
    ]
    wanted = [scores[0]] * len(forms)
    check(reranker.predict(forms, batch_size=2), wanted)
    one = reranker.predict(forms[1])
    assert one.shape == ()
    check(one, scores[0])
    assert reranker.predict([]).shape == (0,)
    for wrong, size, message in (
        ([(QUERY, {"audio": "a"})], 3, r"`inputs\[0\]` must be"),
        ([*forms, (QUERY, b"a")], 2, r"`images\[6\]`"),
        (forms, 0, "`batch_size`"),
    ):
        with pytest.raises(ValueError, match=message):
            reranker.predict(wrong, batch_size=size)


def test_rank(reranker, photos, scores, order):
    found = reranker.rank(QUERY, photos, top_k=3, return_documents=True)
    assert [one["corpus_id"] for one in found] == order[:3]
    assert [one["text"] for one in found] == [photos[i] for i in order[:3]]
    check([one["score"] for one in found], scores[order[:3]])
    texts = [QUERY, "a large blue square"]
    wanted = reranker.task.score(photos[0], texts)
    (best,) = reranker.rank({"image": photos[0]}, texts, top_k=1)
    assert best["corpus_id"] == wanted.argmax()
    told = [{"text": text} for text in texts]
    assert reranker.rank(photos[0], told, top_k=1) == [best]
    assert reranker.rank(QUERY, []) == []
