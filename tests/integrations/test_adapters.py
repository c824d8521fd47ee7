"""Test the adapters within the installed packages."""

import asyncio
import base64
import concurrent.futures
import io
import pathlib

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_contrastive"
TEXTS = ["a red circle", "a large blue square in the north."]
pytestmark = FASTEST


@pytest.fixture(scope="module")
def task():
    return kbt.BridgeTowerContrastive.from_preset(PRESET)


@pytest.fixture
def photos(tmp_path):
    paths = [str(tmp_path / f"{colour}.png") for colour in ("red", "blue")]
    for path in paths:
        Image.new("RGB", (40, 30), pathlib.Path(path).stem).save(path)
    return paths


def importorskip(name):
    return pytest.importorskip(name, reason="the extra `integrations`")


def run(coroutine):
    """Run in a thread of its own: other tests may leave a loop running here."""
    with concurrent.futures.ThreadPoolExecutor() as pool:
        return pool.submit(asyncio.run, coroutine).result()


def check(found, wanted):
    np.testing.assert_allclose(np.array(found), wanted, atol=1e-6)


def test_langchain(task):
    stores = importorskip("langchain_core.vectorstores")
    from langchain_core.embeddings import Embeddings

    from keras_bridgetower.apps.search.adapters import langchain

    embeddings = langchain.BridgeTowerEmbeddings(task)
    assert isinstance(embeddings, Embeddings)
    wanted = task.embed(texts=TEXTS)
    check(embeddings.embed_documents(TEXTS), wanted)
    check(embeddings.embed_query(TEXTS[0]), wanted[0])
    check(run(embeddings.aembed_documents(TEXTS)), wanted)
    check(run(embeddings.aembed_query(TEXTS[1])), wanted[1])
    store = stores.InMemoryVectorStore(embeddings)
    store.add_texts(TEXTS)
    (found,) = store.similarity_search(TEXTS[1], k=1)
    assert found.page_content == TEXTS[1]


def test_llama_index(task, photos):
    importorskip("llama_index.core")
    from llama_index.core.embeddings import MultiModalEmbedding

    from keras_bridgetower.apps.search.adapters import llama_index

    model = llama_index.BridgeTowerMultiModalEmbedding(preset=PRESET)
    assert isinstance(model, MultiModalEmbedding)
    texts, images = task.embed(texts=TEXTS), task.embed(images=photos)
    check(model.get_text_embedding(TEXTS[0]), texts[0])
    check(model.get_text_embedding_batch(TEXTS), texts)
    check(model.get_query_embedding(TEXTS[1]), texts[1])
    check(model.get_image_embedding(photos[0]), images[0])
    check(model.get_image_embedding_batch(photos), images)
    with open(photos[1], "rb") as file:
        check(model.get_image_embedding(io.BytesIO(file.read())), images[1])
    check(run(model.aget_query_embedding(TEXTS[0])), texts[0])
    check(run(model.aget_text_embedding(TEXTS[1])), texts[1])
    check(run(model.aget_image_embedding(photos[0])), images[0])


@pytest.mark.filterwarnings("ignore")
def test_sentence_transformers(task, photos, tmp_path):
    theirs = importorskip("sentence_transformers")
    from sentence_transformers.sentence_transformer import evaluation

    folder = str(tmp_path / "model")
    kbt.export_to_sentence_transformers(task, folder)
    model = theirs.SentenceTransformer(folder, trust_remote_code=True)
    texts, images = task.embed(texts=TEXTS), task.embed(images=photos)
    pictures = [Image.open(path) for path in photos]
    pairs = [
        {"text": text, "image": picture}
        for text, picture in zip(TEXTS, pictures, strict=True)
    ]
    check(model.encode(TEXTS, batch_size=1), texts)
    check(model.encode_query(TEXTS[0]), texts[0])
    check(model.encode_document(photos), images)
    check(model.encode(pictures), images)
    check(model.encode(pairs), task.embed(photos, TEXTS))
    check(model.similarity(texts, images), texts @ images.T)
    assert model.get_embedding_dimension() == task.projection_dim
    near = np.argsort(-(images @ texts[0])).tolist()
    evaluator = evaluation.InformationRetrievalEvaluator(
        {"q": TEXTS[0]},
        dict(zip("ab", photos, strict=True)),
        {"q": {"ab"[near[1]]}},
        write_csv=False,
    )
    # The picture that is called right is the second.
    assert evaluator(model)["cosine_mrr@10"] == pytest.approx(1 / 2)
    with pytest.raises(ValueError, match="mixes multiple modalities"):
        model.encode([TEXTS[0], pictures[0]])


def test_lancedb(task, photos, tmp_path):
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
    images = task.embed(images=photos)
    check(table.to_arrow()["vector"].to_pylist(), images)
    # Opened anew, the table finds the function by its name.
    table = lancedb.connect(tmp_path / "db").open_table("t")
    wanted = photos[int(np.argmax(images @ task.embed(texts=TEXTS[0])))]
    (found,) = table.search(TEXTS[0]).limit(1).to_pydantic(Photo)
    assert found.path == wanted
    picture = Image.open(photos[1])
    (found,) = table.search(picture).limit(1).to_pydantic(Photo)
    assert found.path == photos[1]


def test_chroma(task, photos, tmp_path):
    chromadb = importorskip("chromadb")
    from keras_bridgetower.apps.search.adapters import chroma

    function = chroma.BridgeTowerChromaFunction(PRESET)
    red = np.asarray(Image.open(photos[0]))
    texts, image = task.embed(texts=TEXTS), task.embed(images=photos[0])
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


def test_the_embedder_takes_pictures_in_any_form(task, photos, monkeypatch):
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
    found = embedder.embed_image_text_pairs(
        [TEXTS[0]] * len(forms), forms, batch_size=2
    )
    check(found, [pair] * len(forms))
    assert embedder.embed_images([]) == []
    # A path that looks like base64.
    path = pathlib.Path(photos[0])
    monkeypatch.chdir(path.parent)
    path = path.rename("iVBORw0KGgoAAAANSUhEUgAAACgAAAAe")
    check(embedder.embed_images([str(path)]), [wanted])
    short = kbt.BridgeTowerEmbedder.from_preset(PRESET, sequence_length=12)
    wanted = task.embed(texts=TEXTS[0], sequence_length=12)
    check(short.embed_query(TEXTS[0]), wanted)
    for wrong, message in (
        (text[:-9] + "*" + text[-8:], r"`images\[1\]`"),
        ("no/such.png", "must be a file that exists"),
    ):
        with pytest.raises(ValueError, match=message):
            embedder.embed_images([photos[1], wrong])
