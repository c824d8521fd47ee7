"""Real clients that rerank, and a recorder of what they send.

    python tests/serve/rerank_clients.py

writes the requests of the installed clients to `rerank_requests.json`, and
keeps the others. Those of Dify's plug-ins were recorded in the same way.
"""

import contextlib
import http.server
import importlib.metadata
import json
import os
import pathlib
import threading

RECORDED = pathlib.Path(__file__).with_name("rerank_requests.json")
# In place of the pictures of a recorded request.
DOCUMENTS = ["data:image/png;base64,0", "data:image/png;base64,1"]
QUERY = "a red circle"


def cohere(url, key, model, query, documents):
    import cohere
    import httpx

    with httpx.Client() as http:
        client = cohere.ClientV2(key, base_url=url, httpx_client=http)
        found = client.rerank(model=model, query=query, documents=documents)
    return [(one.index, one.relevance_score) for one in found.results]


def cohere_v1(url, key, model, query, documents):
    import cohere
    import httpx

    with httpx.Client() as http:
        client = cohere.Client(key, base_url=url, httpx_client=http)
        found = client.rerank(
            model=model,
            query=query,
            documents=documents,
            return_documents=True,
            max_chunks_per_doc=1,
        )
    # As plug-ins of Dify read it.
    texts = [one.document.text for one in found.results]
    assert texts == [documents[one.index] for one in found.results]
    return [(one.index, one.relevance_score) for one in found.results]


def _by_haystack(ranker, query, documents):
    from haystack import Document

    listed = [Document(content=text) for text in documents]
    found = ranker.run(query=query, documents=listed)["documents"]
    return [(documents.index(one.content), one.score) for one in found]


def haystack_cohere(url, key, model, query, documents):
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.cohere import CohereRanker

    secret = Secret.from_token(key)
    ranker = CohereRanker(model, api_key=secret, api_base_url=url)
    return _by_haystack(ranker, query, documents)


def haystack_jina(url, key, model, query, documents):
    from haystack.utils import Secret
    from haystack_integrations.components.rankers.jina import JinaRanker

    secret = Secret.from_token(key)
    ranker = JinaRanker(model, secret, base_url=f"{url}/v1/rerank")
    return _by_haystack(ranker, query, documents)


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


def langchain_cohere(url, key, model, query, documents):
    from langchain_cohere import CohereRerank

    rerank = CohereRerank(cohere_api_key=key, model=model, base_url=url)
    found = rerank.rerank(documents, query)
    return [(one["index"], one["relevance_score"]) for one in found]


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


# From a name to the distribution that is imported, and the call.
CLIENTS = {
    "cohere": ("cohere", cohere),
    "cohere (v1)": ("cohere", cohere_v1),
    "cohere-haystack": ("cohere-haystack", haystack_cohere),
    "jina-haystack": ("jina-haystack", haystack_jina),
    "llama-index (Jina)": (
        "llama-index-postprocessor-jinaai-rerank",
        llama_index_jina,
    ),
    "llama-index (TEI)": (
        "llama-index-postprocessor-tei-rerank",
        llama_index_tei,
    ),
    "langchain-cohere": ("langchain-cohere", langchain_cohere),
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


class _Recorder(http.server.BaseHTTPRequestHandler):
    def do_POST(self):
        body = self.rfile.read(int(self.headers["content-length"]))
        self.server.received.append((self.path, json.loads(body)))
        self.send_response(400)
        self.end_headers()

    def log_message(self, *arguments):
        pass


def main():
    kept = {one["client"]: one for one in json.loads(RECORDED.read_text())}
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Recorder)
    server.received = []
    threading.Thread(target=server.serve_forever, daemon=True).start()
    url = f"http://127.0.0.1:{server.server_port}"
    os.environ["LITELLM_LOCAL_MODEL_COST_MAP"] = "True"
    for name, (distribution, rerank) in CLIENTS.items():
        try:
            version = importlib.metadata.version(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
        # The answer is an error, which clients report in many ways.
        with contextlib.suppress(Exception):
            rerank(url, "key", "model", QUERY, DOCUMENTS)
        path, body = server.received[-1]
        kept[name] = {
            "client": name,
            "version": version,
            "path": path,
            "body": body,
        }
    server.shutdown()
    lines = ",\n".join(map(json.dumps, kept.values()))
    RECORDED.write_text(f"[\n{lines}\n]\n")


if __name__ == "__main__":
    main()
