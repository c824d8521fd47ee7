"""Test the shapes of all routes, and compare answers with offline tasks."""

import base64
import functools
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
from keras_bridgetower.apps.serve import models
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.inputs import ToEmbed

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


def near(value):
    return pytest.approx(value, rel=CLOSE["rtol"], abs=CLOSE["atol"])


def column(rows, name):
    return [row[name] for row in rows]


def vectors(answer):
    return column(answer["data"], "embedding")


@pytest.mark.parametrize("path", ["/v1/embeddings", "/embeddings"])
def test_the_shape_of_the_hosted_service(client, offline, path):
    inputs = [
        {"text": TEXT, "image": RED_64},
        {"text": TEXT},
        {"image": f"data:image/png;base64,{BLUE_64}"},
    ]
    answer = posted(
        client,
        path,
        model=FUSED,
        input=inputs,
        truncate=False,
        truncation_direction="Right",
    )
    embed = offline["embed"].embed
    close(vectors(answer), [embed(RED, TEXT), embed(texts=TEXT), embed(BLUE)])
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
    body = {"input": LONG, "model": FUSED, "truncate": True}
    answer = posted(
        client, "/embeddings", **body, truncation_direction=direction
    )
    expected = offline["embed"].embed(texts=[LONG], long_texts=rule)
    close(vectors(answer), expected)


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
    # 200 tokens there; this preset has fewer positions.
    rule = {"sequence_length": 32, "long_texts": "cut_end"}
    embed = functools.partial(offline["embed"].embed, **rule)
    for image, expected in (
        ({}, embed(texts=LONG)),
        ({"img_b64_str": RED_64}, embed(RED, LONG)),
    ):
        found = posted(client, "/v1/encode", text=LONG, **image)
        assert list(found) == ["embedding"]
        close(found["embedding"], expected)
    assert client.get("/v1/health_check").status_code == 200
    status = client.post("/v1/worker_get_status").json()
    assert status["model_names"] == [FUSED, MATCHING, ASKING]


def test_opea_micro_service(client, offline):
    embed = offline["embed"].embed
    found = posted(client, "/v1/embeddings", text=TEXT)
    close(found.pop("embedding"), embed(texts=TEXT))
    assert found == {"text": TEXT}
    image = {"base64_image": RED_64}
    found = posted(client, "/v1/embeddings", text={"text": TEXT}, image=image)
    close(found.pop("embedding"), embed(RED, TEXT))
    assert found == {"text": TEXT, **image}


def test_score(client, offline):
    pairs = [{"image": image, "text": TEXT} for image in (RED_64, BLUE_64)]
    answer = posted(client, "/v1/score", model=MATCHING, pairs=pairs)
    close(
        column(answer["data"], "score"),
        offline["match"].score([RED, BLUE], TEXT),
    )


def test_rerank_orders_pictures_by_the_matching_head(client, offline):
    documents = [{"image": BLUE_64}, {"image": RED_64}]
    answer = posted(
        client,
        "/v1/rerank",
        query=TEXT,
        documents=documents,
        return_documents=True,
        top_n=1,
    )
    [best] = answer["results"]
    scores = offline["match"].score([BLUE, RED], TEXT)
    assert best["index"] == int(np.argmax(scores))
    close(best["relevance_score"], max(scores))
    assert best["document"] == documents[best["index"]]


@pytest.mark.parametrize("by", ["a picture", "a text"])
def test_rerank_orders_texts(client, offline, by):
    texts = ["a large blue square", "a medium red circle"]
    if by == "a picture":
        query = {"image": RED_64}
        expected = offline["match"].score(RED, texts)
    else:
        query = TEXT
        embedded = offline["embed"].embed(texts=[TEXT, *texts])
        expected = embedded[1:] @ embedded[0]
    model = MATCHING if by == "a picture" else FUSED
    answer = posted(
        client, "/v1/rerank", model=model, query=query, documents=texts
    )
    scores = column(answer["results"], "relevance_score")
    assert scores == sorted(scores, reverse=True)
    close(scores, expected[column(answer["results"], "index")])


def test_answer(client, offline):
    question = "what color is the shape?"
    answer = posted(
        client, "/v1/answer", image=RED_64, question=question, top_k=2
    )
    expected = offline["answer"].answer(RED, question, top_k=2)
    answers = [{"answer": text, "score": near(x)} for text, x in expected]
    assert answer == {"answers": answers, "model": ASKING}


def test_fill(client, offline):
    text = "there is a medium <mask> circle"
    answer = posted(client, "/v1/fill", image=RED_64, text=text, top_k=2)
    [mask], filled = offline["fill"].fill_mask(RED, text, top_k=2)
    tokens = [{"token": token, "probability": near(p)} for token, p in mask]
    expected = {"masks": [tokens], "filled": filled, "model": MATCHING}
    assert answer == expected


def test_search(client, photos):
    answer = posted(client, "/v1/search", text="a small red circle", top_k=3)
    search = kbt.search.PictureSearch(str(photos.parent / "index"))
    hits = search.query("a small red circle", top_k=3)
    for found, hit in zip(answer["data"], hits, strict=True):
        assert photos / found["picture"] == pathlib.Path(hit.path)
        similar = [found["similarity"], found["match"]]
        close(similar, [hit.similarity, hit.match])
    # No folder of this machine is disclosed.
    assert str(photos) not in json.dumps(answer)


def test_bad_inputs_do_not_affect_their_batch(presets):
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
    assert models._public(hit)["picture"] == "cats/1.png"
    # Of a table that was indexed with `outside=True`.
    hit = Hit("/elsewhere/1.png", 0.5, folder="/photos")
    assert models._public(hit)["picture"] == "1.png"
