"""Test the shapes of all routes, and compare answers with offline tasks."""

import base64
import functools
import json
import pathlib
import re

import numpy as np
import pytest
from builders import FASTEST
from PIL import Image
from served import ASKING
from served import FUSED
from served import MATCHING
from served import picture

import keras_bridgetower as kbt
from keras_bridgetower.apps.search.picture_search import Hit
from keras_bridgetower.apps.serve import models
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.apps.serve.plan import Plan

pytestmark = FASTEST
TEXT = "a medium red circle in the center."
LONG = "a small blue rectangle is above the large green circle. " * 8
RED, RED_64 = picture("red")
BLUE, BLUE_64 = picture("blue")
# The same rows, but others with them in the batch.
near = functools.partial(pytest.approx, rel=1e-5, abs=1e-5)


def posted(client, path, **body):
    answer = client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    return answer.json()


def close(found, expected):
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


def column(rows, name):
    return [row[name] for row in rows]


def vectors(answer):
    return column(answer["data"], "embedding")


def test_the_shape_of_the_hosted_service(client, offline):
    inputs = [
        {"text": TEXT, "image": RED_64},
        {"text": TEXT},
        {"image": f"data:image/png;base64,{BLUE_64}"},
    ]
    answer = posted(client, "/embeddings", model=FUSED, input=inputs)
    embed = offline["embed"].embed
    close(vectors(answer), [embed(RED, TEXT), embed(texts=TEXT), embed(BLUE)])
    assert [row["index"] for row in answer["data"]] == [0, 1, 2]
    assert {row["object"] for row in answer["data"]} == {"embedding"}
    assert (answer["object"], answer["model"]) == ("list", FUSED)
    tokenizer = offline["embed"].preprocessor.tokenizer
    count = 2 * int(tokenizer.encode(TEXT)["padding_mask"].sum())
    assert answer["usage"] == {"prompt_tokens": count, "total_tokens": count}


def test_truncation(client, offline):
    body = {"input": LONG, "model": FUSED, "truncate": True}
    body["truncation_direction"] = "Right"
    expected = offline["embed"].embed(texts=[LONG], long_texts="cut_end")
    close(vectors(posted(client, "/embeddings", **body)), expected)


def test_base64_vectors_are_32_bit_floats(client, offline):
    # A prefix, and hyphens in place of underscores.
    name = f"user/{FUSED.replace('_', '-')}"
    body = {"model": name, "input": TEXT, "encoding_format": "base64"}
    answer = posted(client, "/v1/embeddings", **body)
    assert answer["model"] == name
    found = np.frombuffer(base64.b64decode(vectors(answer)[0]), "<f4")
    close(found, offline["embed"].embed(texts=TEXT))


def test_score(client, offline):
    pairs = [{"image": image, "text": TEXT} for image in (RED_64, BLUE_64)]
    answer = posted(client, "/v1/score", model=MATCHING, pairs=pairs)
    expected = offline["match"].score([RED, BLUE], TEXT)
    close(column(answer["data"], "score"), expected)
    # As the page shows them.
    shares = offline["match"].match_probabilities([RED, BLUE], TEXT)[:, 0]
    close(column(answer["data"], "probability"), shares)


PICTURES = [f"data:image/png;base64,{image}" for image in (BLUE_64, RED_64)]


def check(results, scores):
    """Compare results, dicts with an index and a score, with scores."""
    scores = np.asarray(scores)
    assert column(results, "index") == np.argsort(-scores).tolist()
    [name] = {"score", "relevance_score"} & {*results[0]}
    close(column(results, name), np.sort(scores)[::-1])


def test_rerank_of_other_services(client, offline):
    """With objects, strings, and the raw scores of TEI."""
    scores = offline["match"].score([BLUE, RED], TEXT)
    shares = 1 / (1 + np.exp(-scores))
    documents = [{"image": BLUE_64}, {"image": RED_64}]
    body = {"model": MATCHING, "query": TEXT, "documents": documents}
    check(posted(client, "/v2/rerank", **body, top_n=2)["results"], shares)
    body |= {"return_documents": True, "top_n": 1}
    [best] = posted(client, "/v1/rerank", **body)["results"]
    assert best["document"] == documents[int(np.argmax(scores))]
    body = {"query": TEXT, "texts": PICTURES, "return_text": True}
    check(posted(client, "/rerank", **body), shares)
    found = posted(client, "/rerank", **body, raw_scores=True)
    check(found, scores)
    assert found[0]["text"] == PICTURES[int(np.argmax(scores))]
    for path, name in (("/v2/rerank", "documents"), ("/rerank", "texts")):
        body = {"query": TEXT, name: [TEXT, PICTURES[0]]}
        answer = client.post(path, json=body)
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == name


def test_content_of_vllm(client, offline):
    """A query of pictures too, and one for each document."""
    parts = [
        {"content": [{"type": "image_url", "image_url": {"url": url}}]}
        for url in PICTURES
    ]
    text = {"content": [{"type": "text", "text": TEXT}]}
    scores = offline["match"].score([BLUE, RED], TEXT)
    body = {"model": MATCHING, "queries": parts, "items": [text, text]}
    answer = posted(client, "/score", **body, raw_scores=True)
    close(column(answer["data"], "score"), scores)
    tokenizer = offline["match"].preprocessor.tokenizer
    count = int(tokenizer.encode(TEXT)["padding_mask"].sum())
    assert answer["usage"]["total_tokens"] == 2 * count
    body = {"query": parts[1], "documents": text, "return_documents": True}
    [best] = posted(client, "/rerank", **body)["results"]
    assert best["document"] == text
    close(best["relevance_score"], 1 / (1 + np.exp(-scores[1])))


def test_long_documents_are_cut(client, offline):
    embed = offline["embed"].embed
    tokenizer = offline["embed"].preprocessor.tokenizer
    asked = {"model": FUSED, "query": TEXT, "truncation_direction": "left"}
    # The second fits into the 9 tokens.
    documents = [LONG, "a red circle"]
    most = tokenizer.sequence_length
    for limit, body in ((9, {"max_tokens_per_doc": 9}), (most, {})):
        body |= {"truncate": True, "documents": documents, **asked}
        answer = posted(client, "/v1/rerank", **body, raw_scores=True)
        [query, *vectors] = [
            embed(texts=[one], sequence_length=limit, long_texts="cut_start")[0]
            for one in (TEXT, *documents)
        ]
        if limit == 9:
            query = embed(texts=TEXT)
        check(answer["results"], np.array(vectors) @ query)
        counts = map(len, tokenizer.token_lists([TEXT, *documents]))
        read, *cut = [count + 2 for count in counts]
        count = read + sum(min(limit, one) for one in cut)
        assert answer["usage"]["total_tokens"] == count


def test_unknown_fields_are_ignored_and_named(client, presets):
    documents = [{"text": TEXT, "title": "a", "id": 1}, {"text": "a", "id": 2}]
    body = {"query": TEXT, "documents": documents, "priority": 1, "top_n": 1}
    body |= {"return_documents": True, "max_tokens_per_doc": None}
    answer = posted(client, "/v2/rerank", **body)
    ignored = ["documents.title", "documents.id", "priority"]
    assert answer["ignored"] == ignored
    # They are sent back, as Cohere does.
    assert answer["results"][0]["document"] == documents[0]
    assert posted(client, "/v1/embeddings", input="a", user="b")["ignored"] == [
        "user"
    ]
    import httpx
    from local_server import serving

    plan = Plan((FUSED,), strict=True)
    with serving(plan, presets[:1]) as strict:
        answer = httpx.post(f"{strict.url}/v2/rerank", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == ignored[0]


def test_rerank_orders_texts(client, offline):
    texts = ["a large blue square", "a medium red circle"]
    embedded = offline["embed"].embed(texts=[TEXT, *texts])
    for model, query, expected in (
        (FUSED, TEXT, (1 + embedded[1:] @ embedded[0]) / 2),
        (
            *(MATCHING, {"image": RED_64}),
            offline["match"].match_probabilities(RED, texts)[0],
        ),
    ):
        body = {"model": model, "query": query, "documents": texts}
        check(posted(client, "/v1/rerank", **body)["results"], expected)


def test_answer(client, offline):
    question = "what color is the shape?"
    body = {"image": RED_64, "question": question, "top_k": 2}
    answer = posted(client, "/v1/answer", **body)
    expected = offline["answer"].answer(RED, question, top_k=2)
    answers = [{"answer": text, "score": near(x)} for text, x in expected]
    assert answer == {"answers": answers, "model": ASKING}


def test_answers_say_what_is_known(presets, monkeypatch):
    served = presets[2]
    asked = Asked("what color is the shape?", Image.new("RGB", (64, 64)))
    for threshold in (-999.0, 999.0):
        rule = {"kind": "energy", "threshold": threshold}
        monkeypatch.setattr(served.tasks["answer"], "rejection", rule)
        [found] = served.ask("answer", [asked])
        assert {*found} == {"answers", "known"}
        assert found["known"] is (threshold < 0)
        assert {*found["answers"][0]} == {"answer", "score"}


def test_fill(client, offline):
    text = "there is a medium <mask> circle"
    answer = posted(client, "/v1/fill", image=RED_64, text=text, top_k=2)
    [mask], filled = offline["fill"].fill_mask(RED, text, top_k=2)
    tokens = [{"token": token, "probability": near(p)} for token, p in mask]
    expected = {"masks": [tokens], "filled": filled, "model": MATCHING}
    assert answer == expected


def test_search(client, index, photos, monkeypatch):
    query = {"text": "a small red circle", "top_k": 3}
    answer = posted(client, "/v1/search", **query, rerank=128)
    search = kbt.search.PictureSearch(str(photos.parent / "index"))
    hits = search.query(**query, rerank=128)
    for found, hit in zip(answer["data"], hits, strict=True):
        assert photos / found["picture"] == pathlib.Path(hit.path)
        close(found["similarity"], hit.similarity)
        close(found["match"], hit.match)
    # No folder of this machine is disclosed, nor that of a table which was
    # indexed with `outside=True`.
    assert str(photos) not in json.dumps(answer)
    hit = Hit("/elsewhere/1.png", 0.5, folder="/photos")
    assert models._public(hit)["picture"] == "1.png"
    # Matching orders a list unasked where it is known to improve it.
    for known in (False, True):
        monkeypatch.setattr(index._models, "reranks", known)
        hits = posted(client, "/v1/search", **query)["data"]
        assert [hit["match"] is not None for hit in hits] == [known] * 3


def test_state_of_the_server(client, server):
    assert client.get("/health").json() == {"status": "ok"}
    assert client.get("/ready").json() == {"status": "ready"}
    listed = client.get("/v1/models").json()["data"]
    assert [model["id"] for model in listed] == [FUSED, MATCHING, ASKING]
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
