"""Test the requests of real clients that rerank, and what they read."""

import gc
import importlib.metadata
import json
import os

import numpy as np
import pytest
from builders import FASTEST
from rerank_clients import CLIENTS
from rerank_clients import DOCUMENTS
from rerank_clients import QUERY
from rerank_clients import RECORDED
from served import KEY
from served import MATCHING
from served import picture

pytestmark = FASTEST
PICTURES = [picture(color) for color in ("blue", "red")]
URLS = [f"data:image/png;base64,{encoded}" for _, encoded in PICTURES]


@pytest.fixture(scope="module")
def shares(offline):
    images = [image for image, _ in PICTURES]
    return offline["match"].match_probabilities(images, QUERY)[:, 0]


def check(pairs, shares):
    """Compare pairs of an index and a score with scores, best first."""
    assert [index for index, _ in pairs] == np.argsort(-shares).tolist()
    found = [score for _, score in pairs]
    np.testing.assert_allclose(found, -np.sort(-shares), atol=1e-5)


# A client may leave its socket open.
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.filterwarnings("ignore::ResourceWarning")
@pytest.mark.parametrize("name", CLIENTS)
def test_the_client(server, shares, name, monkeypatch):
    distribution, rerank = CLIENTS[name]
    try:
        importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        pytest.skip(f"{distribution}, a client that is not installed")
    monkeypatch.setitem(os.environ, "LITELLM_LOCAL_MODEL_COST_MAP", "True")
    check(rerank(server.url, KEY, MATCHING, QUERY, URLS), shares)
    # Otherwise its socket would warn in a later test.
    gc.collect()


REQUESTS = json.loads(RECORDED.read_text())


@pytest.mark.parametrize("sent", REQUESTS, ids=lambda sent: sent["client"])
def test_a_recorded_request(client, shares, sent):
    text = json.dumps(sent["body"])
    for short, url in zip(DOCUMENTS, URLS, strict=True):
        text = text.replace(f'"{short}"', f'"{url}"')
    body = json.loads(text)
    if "model" in body:
        body["model"] = MATCHING
    answer = client.post(sent["path"], json=body)
    assert answer.status_code == 200, answer.text
    found = answer.json()
    if "texts" in body:
        check([(one["index"], one["score"]) for one in found], shares)
        return
    assert found["usage"]["total_tokens"] > 0
    assert found["model"] == MATCHING
    ignored = {"instruction", "max_chunks_per_doc"} & {*body}
    ignored = {name for name in ignored if body[name] is not None}
    assert set(found.get("ignored", ())) == ignored
    if sent["path"] == "/score":
        scores = [one["score"] for one in found["data"]]
        assert [one["index"] for one in found["data"]] == [0, 1]
        np.testing.assert_allclose(scores, shares, atol=1e-5)
        return
    pairs = [(one["index"], one["relevance_score"]) for one in found["results"]]
    check(pairs, shares)
    if body.get("return_documents"):
        texts = [one["document"]["text"] for one in found["results"]]
        assert texts == [URLS[index] for index, _ in pairs]
