"""Test the requests of real clients that rerank, and what they read."""

import contextlib
import gc
import importlib.metadata
import json
import os
import pathlib

import numpy as np
import pytest
from builders import FASTEST
from served import KEY
from served import MATCHING
from served import picture

pytestmark = FASTEST
QUERY = "a red circle"
PICTURES = [picture(color) for color in ("blue", "red")]
URLS = [f"data:image/png;base64,{encoded}" for _, encoded in PICTURES]


def cohere(url, key, model, query, documents):
    import cohere
    import httpx

    with httpx.Client() as http:
        client = cohere.ClientV2(key, base_url=url, httpx_client=http)
        found = client.rerank(model=model, query=query, documents=documents)
    return [(one.index, one.relevance_score) for one in found.results]


def haystack_jina(url, key, model, query, documents):
    from haystack import Document
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    secret = Secret.from_token(key)
    ranker = JinaRanker(model, secret, base_url=f"{url}/v1/rerank")
    listed = [Document(content=text) for text in documents]
    found = ranker.run(query=query, documents=listed)["documents"]
    return [(documents.index(one.content), one.score) for one in found]


def _by_llama_index(rerank, query, documents):
    from llama_index.core.schema import NodeWithScore
    from llama_index.core.schema import TextNode

    nodes = [NodeWithScore(node=TextNode(text=text)) for text in documents]
    found = rerank.postprocess_nodes(nodes, query_str=query)
    return [(documents.index(one.node.text), one.score) for one in found]


def llama_index_jina(url, key, model, query, documents):
    from llama_index.postprocessor.jinaai_rerank import JinaRerank

    rerank = JinaRerank(base_url=f"{url}/v1", api_key=key, model=model, top_n=2)
    with contextlib.closing(rerank._session):
        return _by_llama_index(rerank, query, documents)


def llama_index_tei(url, key, model, query, documents):
    from llama_index.postprocessor.tei_rerank import TextEmbeddingInference

    rerank = TextEmbeddingInference(
        base_url=url, auth_token=f"Bearer {key}", top_n=2
    )
    return _by_llama_index(rerank, query, documents)


def _by_litellm(service, **options):
    def rerank(url, key, model, query, documents):
        import litellm

        found = litellm.rerank(
            model=f"{service}/{model}",
            query=query,
            documents=documents,
            api_key=key,
            api_base=url,
            return_documents=True,
            **options,
        )
        for one in found.results:
            assert one["document"]["text"] == documents[one["index"]]
        return [(one["index"], one["relevance_score"]) for one in found.results]

    return rerank


# From a name to the distribution that is imported, and the call. What others
# send, such as those that wrap one of these, is recorded.
CLIENTS = {
    "cohere": ("cohere", cohere),
    "jina-haystack": ("jina-haystack", haystack_jina),
    "llama-index (Jina)": (
        "llama-index-postprocessor-jinaai-rerank",
        llama_index_jina,
    ),
    "llama-index (TEI)": (
        "llama-index-postprocessor-tei-rerank",
        llama_index_tei,
    ),
    "litellm (Cohere)": (
        "litellm",
        _by_litellm("cohere", max_tokens_per_doc=512),
    ),
    "litellm (Jina)": ("litellm", _by_litellm("jina_ai", top_n=2)),
    "litellm (vLLM)": (
        "litellm",
        _by_litellm("hosted_vllm", instruction="Find the picture.", top_n=2),
    ),
    "litellm (TEI)": ("litellm", _by_litellm("huggingface", top_n=2)),
}


@pytest.fixture(scope="module")
def shares(offline):
    images = [image for image, _ in PICTURES]
    return offline["match"].match_probabilities(images, QUERY)[:, 0]


def check(pairs, shares):
    """Compare pairs of an index and a score with scores, best first."""
    assert [index for index, _ in pairs] == np.argsort(-shares).tolist()
    found = [score for _, score in pairs]
    np.testing.assert_allclose(found, -np.sort(-shares), atol=1e-5)


# A client may leave its socket open, or have types that pydantic warns of.
@pytest.mark.filterwarnings("ignore:.*ReadOnly:UserWarning")
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


# What those clients, and plug-ins of Dify, sent to another server.
REQUESTS = json.loads(
    pathlib.Path(__file__).with_name("rerank_requests.json").read_text()
)


@pytest.mark.parametrize("sent", REQUESTS, ids=lambda sent: sent["client"])
def test_a_recorded_request(client, shares, sent):
    text = json.dumps(sent["body"])
    for number, url in enumerate(URLS):
        text = text.replace(f"data:image/png;base64,{number}", url)
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
