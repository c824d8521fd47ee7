"""Test the shapes of all routes, and compare answers with offline tasks."""

import base64
import json
import pathlib
import re

import numpy as np
import pytest
from builders import FASTEST
from served import ASKING
from served import FUSED
from served import KEY
from served import MATCHING
from served import picture

import keras_bridgetower as kbt
from keras_bridgetower.apps.search.picture_search import Hit
from keras_bridgetower.apps.serve import index

pytestmark = FASTEST
TEXT = "a medium red circle in the center."
LONG = "a small blue rectangle is above the large green circle. " * 8
RED, RED_64 = picture("red")
BLUE, BLUE_64 = picture("blue")
# The same rows, but others with them in the batch.
CLOSE = {"rtol": 1e-5, "atol": 1e-5}


def posted(client, path, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def close(found, expected):
    np.testing.assert_allclose(found, expected, **CLOSE)


def vectors(answer):
    return [row["embedding"] for row in answer["data"]]


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_the_shape_of_the_hosted_service(client, offline, path):
    answer = posted(
        client,
        path,
        model=FUSED,
        input=[
            {"text": TEXT, "image": RED_64},
            {"text": TEXT},
            {"image": f"data:image/png;base64,{BLUE_64}"},
        ],
        truncate=False,
        truncation_direction="Right",
    )
    embed = offline["embed"].embed
    one, two, three = vectors(answer)
    close(one, embed(RED, TEXT))
    close(two, embed(texts=TEXT))
    close(three, embed(BLUE))
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    assert {row["object"] for row in answer["data"]} == {"embedding"}
    assert (answer["object"], answer["model"]) == ("list", FUSED)
    tokenizer = offline["embed"].preprocessor.tokenizer
    count = 2 * int(tokenizer.encode(TEXT)["padding_mask"].sum())
    assert answer["usage"] == {"prompt_tokens": count, "total_tokens": count}


@pytest.mark.parametrize(
    ("direction", "rule"), [("Right", "cut_end"), ("Left", "cut_start")]
)
def test_truncation(client, offline, direction, rule):
    [found] = vectors(
        posted(
            client,
            "/embeddings",
            model=FUSED,
            input=[{"text": LONG}],
            truncate=True,
            truncation_direction=direction,
        )
    )
    close(found, offline["embed"].embed(texts=LONG, long_texts=rule))


def test_the_client_of_openai(server, offline):
    openai = pytest.importorskip("openai", reason="a client, not needed here")
    client = openai.OpenAI(base_url=f"{server.url}/v1", api_key=KEY)
    pair = {"text": TEXT, "image": RED_64}
    # As the course writes it; the client asks for base64 by itself.
    found = client.embeddings.create(model=FUSED, input=[pair])
    close(found.data[0].embedding, offline["embed"].embed(RED, TEXT))
    found = client.embeddings.create(model=FUSED, input=[TEXT, "a circle"])
    close(found.data[0].embedding, offline["embed"].embed(texts=TEXT))
    with pytest.raises(openai.NotFoundError, match="Available models"):
        client.embeddings.create(model="another", input="a")
    wrong = openai.OpenAI(base_url=f"{server.url}/v1", api_key="wrong")
    with pytest.raises(openai.AuthenticationError):
        wrong.embeddings.create(model=FUSED, input="a")


def test_base64_vectors_are_32_bit_floats(client, offline):
    # A prefix, and hyphens in place of underscores.
    name = f"user/{FUSED.replace('_', '-')}"
    answer = posted(
        client,
        "/v1/embeddings",
        model=name,
        input=TEXT,
        encoding_format="base64",
    )
    assert answer["model"] == name
    found = np.frombuffer(base64.b64decode(vectors(answer)[0]), "<f4")
    close(found, offline["embed"].embed(texts=TEXT))


def test_opea_model_server(client, offline):
    embedder = kbt.BridgeTowerEmbedder(
        offline["embed"],
        # 200 there; this preset has fewer positions.
        sequence_length=32,
        long_texts="cut_end",
    )
    found = posted(client, "/v1/encode", text=LONG)
    assert list(found) == ["embedding"]
    close(found["embedding"], embedder.embed_query(LONG))
    found = posted(client, "/v1/encode", text=LONG, img_b64_str=RED_64)
    pairs = embedder.embed_image_text_pairs([LONG], [RED])
    close(found["embedding"], pairs[0])
    assert client.get("/v1/health_check").status_code == 200
    status = client.post("/v1/worker_get_status").json()
    assert status["model_names"] == [FUSED, MATCHING, ASKING]


def test_opea_micro_service(client, offline):
    embed = offline["embed"].embed
    found = posted(client, "/v1/embeddings", text=TEXT)
    assert found["text"] == TEXT
    close(found["embedding"], embed(texts=TEXT))
    found = posted(
        client,
        "/v1/embeddings",
        text={"text": TEXT},
        image={"base64_image": RED_64},
    )
    assert sorted(found) == ["base64_image", "embedding", "text"]
    assert found["base64_image"] == RED_64
    close(found["embedding"], embed(RED, TEXT))


def test_score(client, offline):
    answer = posted(
        client,
        "/v1/score",
        model=MATCHING,
        pairs=[
            {"image": RED_64, "text": TEXT},
            {"image": BLUE_64, "text": TEXT},
        ],
    )
    found = [row["score"] for row in answer["data"]]
    close(found, offline["match"].score([RED, BLUE], TEXT))


def test_rerank_orders_pictures_by_the_matching_head(client, offline):
    answer = posted(
        client,
        "/v1/rerank",
        query="a medium red circle",
        documents=[{"image": BLUE_64}, {"image": RED_64}],
        return_documents=True,
        top_n=1,
    )
    [best] = answer["results"]
    scores = offline["match"].score([BLUE, RED], "a medium red circle")
    assert best["index"] == int(np.argmax(scores))
    close(best["relevance_score"], max(scores))
    assert best["document"] == {"image": [BLUE_64, RED_64][best["index"]]}


def test_rerank_orders_texts_by_a_picture_and_by_a_text(client, offline):
    texts = ["a large blue square", "a medium red circle"]
    answer = posted(
        client, "/v1/rerank", query={"image": RED_64}, documents=texts
    )
    scores = offline["match"].score(RED, texts)
    rows = sorted(answer["results"], key=lambda row: row["index"])
    close([row["relevance_score"] for row in rows], scores)
    answer = posted(
        client, "/v1/rerank", model=FUSED, query=TEXT, documents=texts
    )
    vectors = offline["embed"].embed(texts=[TEXT, *texts])
    rows = sorted(answer["results"], key=lambda row: row["index"])
    close([row["relevance_score"] for row in rows], vectors[1:] @ vectors[0])


def test_answer(client, offline):
    question = "what color is the shape?"
    answer = posted(
        client, "/v1/answer", image=RED_64, question=question, top_k=2
    )
    expected = offline["answer"].answer(RED, question, top_k=2)
    assert [row["answer"] for row in answer["answers"]] == [
        text for text, _ in expected
    ]
    close([row["score"] for row in answer["answers"]], [x for _, x in expected])
    assert answer["model"] == ASKING


def test_fill(client, offline):
    text = "there is a medium <mask> circle"
    answer = posted(client, "/v1/fill", image=RED_64, text=text, top_k=2)
    masks, filled = offline["fill"].fill_mask(RED, text, top_k=2)
    assert answer["filled"] == filled
    [found], [expected] = answer["masks"], masks
    assert [row["token"] for row in found] == [token for token, _ in expected]
    close([row["probability"] for row in found], [p for _, p in expected])


def test_search(client, photos):
    answer = posted(client, "/v1/search", text="a small red circle", top_k=3)
    search = kbt.search.PictureSearch(str(photos.parent / "index"))
    hits = search.query("a small red circle", top_k=3)
    for found, hit in zip(answer["data"], hits, strict=True):
        assert photos / found["picture"] == pathlib.Path(hit.path)
        close(
            [found["similarity"], found["match"]], [hit.similarity, hit.match]
        )
    # No folder of this machine is disclosed.
    assert str(photos) not in json.dumps(answer)


def test_bad_inputs_do_not_affect_their_batch(presets):
    from keras_bridgetower.apps.serve.errors import Refused
    from keras_bridgetower.apps.serve.inputs import ToEmbed

    asked = [ToEmbed(TEXT), ToEmbed(LONG), ToEmbed("a circle")]
    first, second, third = presets[0].ask("embed", asked)
    assert isinstance(second, Refused)
    close(first[0], presets[0].embed([ToEmbed(TEXT)])[0][0])
    close(third[0], presets[0].embed([ToEmbed("a circle")])[0][0])


def test_pairs_need_a_three_way_head(client):
    answer = client.post(
        "/v1/embeddings",
        json={"model": MATCHING, "input": [{"text": "a", "image": RED_64}]},
    )
    assert answer.status_code == 400
    assert "two-way" in answer.json()["error"]["message"]


def test_state_of_the_server(client, server):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [FUSED, MATCHING, ASKING]
    paths = client.get("/openapi.json").json()["paths"]
    assert "/v1/rerank" in paths
    posted(client, "/v1/embeddings", input=["a", "b"])
    metrics = client.get("/metrics").text
    assert 'route="/v1/embeddings",status="200"' in metrics
    counted = [x for x in metrics.splitlines() if 'verb="embed"' in x]
    assert float(counted[0].split()[-1]) >= 2


def test_the_docs_page_loads_nothing_from_the_network(client):
    page = client.get("/docs").text
    files = re.findall(r'(?:src|href)="([^"]+)"', page)
    assert len(files) == 3 and all(file.startswith("/") for file in files)
    assert all(client.get(file).status_code == 200 for file in files)
    assert "://" not in page
    # ReDoc loads its logo from the network.
    assert client.get("/redoc").status_code == 404


def test_hits_name_no_folder_of_the_server():
    hit = Hit("/photos/cats/1.png", 0.5, folder="/photos")
    assert index._public(hit)["picture"] == "cats/1.png"
    # Of a table that was indexed with `outside=True`.
    hit = Hit("/elsewhere/1.png", 0.5, folder="/photos")
    assert index._public(hit)["picture"] == "1.png"
