"""Rerank by the server with the clients of other services."""

import numpy as np
import pytest
from builders import FASTEST
from served import KEY
from served import MATCHING
from served import picture

pytestmark = FASTEST
TEXT = "a medium red circle in the center."
PICTURES = [f"data:image/png;base64,{picture(c)[1]}" for c in ("blue", "red")]


@pytest.fixture(scope="module")
def scores(offline):
    found = [picture(color)[0] for color in ("blue", "red")]
    return offline["match"].match_probabilities(found, TEXT)[:, 0]


def importorskip(name):
    return pytest.importorskip(name, reason="a client that is not installed")


def nodes():
    from llama_index.core.schema import NodeWithScore
    from llama_index.core.schema import TextNode

    return [NodeWithScore(node=TextNode(text=text)) for text in PICTURES]


def check(results, scores, by=1e-5):
    """Compare results, pairs of an index and a score, with scores."""
    results = [*results]
    assert [index for index, _ in results] == np.argsort(-scores).tolist()
    found = [score for _, score in results]
    np.testing.assert_allclose(found, np.sort(scores)[::-1], atol=by)


def test_cohere(server, scores):
    cohere = importorskip("cohere")
    httpx = importorskip("httpx")
    with httpx.Client() as http:
        client = cohere.ClientV2(
            api_key=KEY, base_url=server.url, httpx_client=http
        )
        found = client.rerank(model=MATCHING, query=TEXT, documents=PICTURES)
    check([(one.index, one.relevance_score) for one in found.results], scores)


def test_jina(server, scores):
    jina = importorskip("llama_index.postprocessor.jinaai_rerank")
    rerank = jina.JinaRerank(
        base_url=f"{server.url}/v1", api_key=KEY, model=MATCHING, top_n=2
    )
    found = rerank.postprocess_nodes(nodes(), query_str=TEXT)
    rerank._session.close()
    places = [PICTURES.index(one.node.text) for one in found]
    check(zip(places, [one.score for one in found], strict=True), scores)


def test_text_embeddings_inference(server, scores):
    tei = importorskip("llama_index.postprocessor.tei_rerank")
    rerank = tei.TextEmbeddingInference(
        base_url=server.url, auth_token=f"Bearer {KEY}"
    )
    found = rerank.postprocess_nodes(nodes(), query_str=TEXT)
    places = [PICTURES.index(one.node.text) for one in found]
    results = zip(places, [one.score for one in found], strict=True)
    check(results, scores)
