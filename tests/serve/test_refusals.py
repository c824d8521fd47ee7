"""Test that rejected texts, pictures and numbers name their field."""

import pytest
from builders import FASTEST
from served import FUSED
from served import MATCHING
from served import picture

pytestmark = FASTEST
TEXT = "a medium red circle in the center."
LONG = "a small blue rectangle is above the large green circle. " * 8
RED, RED_64 = picture("red")
HALF_64 = picture("red")[1][:200]
PAIR = {"image": RED_64, "text": TEXT}
ASKED = {"image": RED_64, "question": "what color is the shape?"}
BLANK = {"image": RED_64, "text": "there is a <mask> circle"}
PICTURES = [{"image": RED_64}, {"image": RED_64}]
RERANK = {"query": TEXT, "documents": PICTURES}
PARTS = [
    {"type": "image_url", "image_url": {"url": "https://example.org/a.png"}},
    {"type": "text", "text": TEXT},
]
# Each a route, a body, and the field that is at fault.
LONG_TEXTS = [
    ("/v1/embeddings", {"input": LONG}, "input.0"),
    ("/v1/score", {"pairs": [PAIR, PAIR | {"text": LONG}]}, "pairs.1"),
    ("/v1/rerank", {"query": LONG, "documents": PICTURES}, "query.0"),
    (
        "/v1/rerank",
        {"query": TEXT, "documents": [TEXT, LONG], "model": FUSED},
        "documents.1",
    ),
    ("/v1/answer", ASKED | {"question": LONG}, "question"),
    ("/v1/fill", BLANK | {"text": f"<mask> {LONG}"}, "text"),
    ("/v1/search", {"text": LONG}, "text"),
]
ROUTES = sorted({path for path, _, _ in LONG_TEXTS} | {"/embeddings"})
OTHERS = [
    ("/v1/fill", BLANK | {"top_k": 100_000}, "top_k"),
    ("/v1/fill", BLANK | {"text": "a circle"}, "text"),
    ("/v1/score", {"pairs": [PAIR | {"image": HALF_64}]}, "pairs.0"),
    # Its contrastive head is two-way.
    ("/v1/embeddings", {"input": [PAIR], "model": MATCHING}, "input.0"),
    # A document is one text or one picture.
    ("/rerank", {"query": TEXT, "documents": [PAIR]}, "documents"),
    ("/v1/rerank", RERANK | {"top_k": 3}, None),
    ("/v1/rerank", RERANK | {"truncate_prompt_tokens": 9}, None),
    ("/v1/rerank", RERANK | {"texts": PICTURES}, None),
    ("/rerank", {"query": TEXT, "texts": PICTURES, "colour": "red"}, None),
    ("/score", {"text_1": [TEXT] * 3, "text_2": PICTURES}, "text_1"),
    ("/score", {"queries": TEXT, "items": [{"content": PARTS}]}, "items.0"),
]


def posted(client, path, content, content_type="application/json"):
    headers = {"content-type": content_type} if content_type else {}
    return client.post(path, content=content, headers=headers)


@pytest.mark.parametrize("path", ROUTES)
def test_every_route_rejects_a_key_twice(client, path):
    answer = posted(client, path, b'{"a": 1, "a": 1}')
    assert answer.status_code == 400
    assert "'a' occurs twice" in answer.json()["error"]["message"]


@pytest.mark.parametrize("content_type", [None, "text/plain"])
def test_a_wrong_content_type_names_the_header(client, content_type):
    answer = posted(client, "/v1/answer", b'{"input": "a"}', content_type)
    assert answer.status_code == 415
    said = answer.json()["error"]["message"]
    assert "`Content-Type: application/json`" in said


@pytest.mark.parametrize(("path", "body", "param"), LONG_TEXTS + OTHERS)
def test_the_field_at_fault_is_named(client, path, body, param):
    answer = client.post(path, json=body)
    assert answer.status_code == 400, answer.text
    error, detail = answer.json()["error"], answer.json()["detail"]
    assert error["param"] == param
    # Clients of Jina show it.
    assert error["message"] == detail
    if LONG in str(body):
        assert "must have at most" in detail and '"truncate": true' in detail


def test_texts_of_maximal_length_are_read(client, offline):
    """The limit is the number of tokens that the model reads; a mask is one."""
    tokenizer = offline["fill"].preprocessor.tokenizer
    most = tokenizer.sequence_length
    words = ["<mask>"] + ["red"] * (most - 3)
    ids = tokenizer.encode_with_masks(" ".join(words))
    assert ids["padding_mask"].sum() == most
    body = BLANK | {"text": " ".join(words), "model": MATCHING}
    assert client.post("/v1/fill", json=body).status_code == 200
    body["text"] += " red"
    assert client.post("/v1/fill", json=body).status_code == 400
