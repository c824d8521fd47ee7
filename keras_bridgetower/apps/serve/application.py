"""The FastAPI application: routes and their errors."""

import base64
import dataclasses
import functools

import fastapi
import numpy as np
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from keras_bridgetower.apps.serve import bodies
from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.admission import Admission
from keras_bridgetower.apps.serve.admission import error_response
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.apps.serve.service import read_picture
from keras_bridgetower.metrics.calibration import match_shares
from keras_bridgetower.version import __version__

# Values of an input that is a picture with a text.
_PAIR = ("image", "text")


def application(service, key=None):
    """Build the ASGI application of a `Service`, and set its `admission`.

    Args:
        service: `Service`.
        key: str, the API key that clients must send, or None.
    """
    # Serves the files of /docs locally. ReDoc would still fetch its logo.
    app = FastAPIOffline(
        redoc_url=None, title="keras-bridgetower", version=__version__
    )
    app.include_router(_server_routes(service))
    # Routes are annotated to return dict, so that pydantic writes the JSON,
    # which is many times faster for vectors.
    app.include_router(_model_routes(service))
    ours = (errors.RequestError, RequestValidationError, HTTPException)
    for kind in (*ours, Exception):
        app.add_exception_handler(kind, _handle_error)
    service.admission = Admission(
        app,
        service.limits,
        service.metrics,
        key,
        set(app.openapi()["paths"]),
        service.plan.allowed_hosts,
    )
    return service.admission


def _server_routes(service):
    routes = fastapi.APIRouter(tags=["server"])
    presets = service.presets.values()

    @routes.get("/health")
    async def health() -> dict:
        """Return ok while the server runs."""
        return {"status": "ok"}

    @routes.get("/ready")
    async def ready() -> dict:
        """Return ready once all models are loaded and warm."""
        missing = await service.missing()
        if missing:
            raise errors.RequestError(503, f"Not ready: {', '.join(missing)}.")
        return {"status": "ready"}

    @routes.get("/metrics")
    async def metrics():
        """Return metrics for Prometheus."""
        return service.metrics.page()

    @routes.get("/v1/models")
    async def models() -> dict:
        """List the served presets."""
        shared = {"object": "model", "owned_by": "keras-bridgetower"}
        data = [{"id": x.name, "verbs": x.verbs, **shared} for x in presets]
        return {"object": "list", "data": data}

    return routes


async def _handle_error(request, error):
    """Answer with the error of a route, of FastAPI or of Starlette."""
    # FastAPI turns any error while a body is read into status 400.
    if isinstance(error.__cause__, errors.RequestError):
        error = error.__cause__
    elif isinstance(error, RequestValidationError):
        error = _invalid_body(request, error)
    elif isinstance(error, HTTPException):
        error = errors.RequestError(error.status_code, f"{error.detail}.")
    return error_response(error)


def _invalid_body(request, error):
    # FastAPI does not parse bodies of other content types.
    if isinstance(error.body, bytes):
        received = request.headers.get("content-type") or "none"
        needed = "The body needs the header `Content-Type: application/json`."
        return errors.RequestError(415, f"{needed} Received: {received}")
    first = error.errors()[0]
    # FastAPI adds "body".
    where = ".".join(str(x) for x in first["loc"] if x != "body")
    problem = first["msg"].removeprefix("Value error, ")
    message = f"{where or 'The body'}: {problem}."
    return errors.RequestError(400, message, where or None)


def _post(routes, service, tag, *paths):
    """Return a decorator that adds a route whose answers name ignored fields.

    Args:
        routes: `fastapi.APIRouter`.
        service: `Service`.
        tag: str, the group of the route on the page /docs.
        *paths: str, its paths.
    """

    def add(function):
        @functools.wraps(function)
        async def answered(body):
            ignored = list(dict.fromkeys(bodies.unknown(body)))
            if ignored and service.plan.strict:
                message = "the server does not know the field: leave it out."
                raise errors.FieldError(ignored[0], message)
            answer = await function(body)
            return {**answer, "ignored": ignored} if ignored else answer

        for path in paths:
            routes.post(path, tags=[tag])(answered)

    return add


def _model_routes(service):
    """Build the routes that ask models, and the index.

    They follow the shapes of OpenAI, the hosted service, Cohere, Jina,
    text-embeddings-inference (TEI) and vLLM.
    """
    routes = fastapi.APIRouter(route_class=bodies.JSONRoute)
    post = functools.partial(_post, routes, service)

    @post("embeddings", "/v1/embeddings", "/embeddings")
    async def embeddings(body: bodies.EmbeddingsBody) -> dict:
        """Embed texts, pictures and pairs."""
        preset = service.preset(body.model, "embed")
        if body.dimensions not in (None, preset.width):
            message = f"{preset.name} has {preset.width} dimensions."
            raise errors.FieldError("dimensions", message)
        values, rule = body.input, body.long_texts
        inputs = await service.read_inputs("input", values, rule)
        found = await preset.ask("embed", inputs)
        data = []
        for index, (vector, _) in enumerate(found):
            encoded = _encode(vector, body.encoding_format)
            row = {"object": "embedding", "index": index, "embedding": encoded}
            data.append(row)
        answer = _model_and_usage(body, preset, [count for _, count in found])
        return {"object": "list", "data": data, **answer}

    @post("matching", "/v1/rerank", "/v2/rerank", "/rerank")
    async def rerank(body: bodies.RerankBody) -> dict | list[dict]:
        """Sort documents by relevance to a query, best first.

        The matching head scores a text with a picture; two texts or two
        pictures get the cosine of their vectors. Both are scaled to 0..1.
        Requests with `texts` are answered as by text-embeddings-inference.
        """
        rows, answer = await _compare(service, body)
        listed = body.name(bodies.DOCUMENTS) == "texts"
        order = np.argsort([-row["score"] for row in rows], kind="stable")
        results = []
        for index in order[: body.top_n or None].tolist():
            name = "score" if listed else "relevance_score"
            result = {"index": index, name: rows[index]["score"]}
            if body.return_documents:
                sent = body.document(index)
                result |= sent if listed else {"document": sent}
            results.append(result)
        return results if listed else {"results": results, **answer}

    @post("matching", "/v1/score", "/score")
    async def score(body: bodies.CompareBody) -> dict:
        """Return the score of each document, or of each pair.

        The score of a pair is the logit of "match" minus that of no match. It
        comes with its probability, which a ranking head does not have.
        """
        rows, answer = await _compare(service, body)
        data = [
            {"object": "score", "index": index, **row}
            for index, row in enumerate(rows)
        ]
        return {"object": "list", "data": data, **answer}

    @post("questions", "/v1/answer")
    async def answer(body: bodies.AnswerBody) -> dict:
        """Return the best answers to a question about a picture."""
        return await _ask(service, body, "answer", "question")

    @post("questions", "/v1/fill")
    async def fill(body: bodies.FillBody) -> dict:
        """Return the best tokens for each `<mask>` of a text on a picture."""
        return await _ask(service, body, "fill", "text")

    @post("tasks", "/v1/predict")
    async def predict(body: bodies.PredictBody) -> dict:
        """Return the results of a task, such as entailment, for each row.

        /v1/models lists the tasks of each model.
        """
        preset = service.preset(body.model, body.task)
        if body.task not in preset.inputs:
            message = f"{body.task!r} has a route of its own: see /docs."
            raise errors.FieldError("task", message)
        service.check_count(body.inputs, "inputs")
        needed, optional = preset.inputs[body.task]
        inputs = []
        for index, given in enumerate(body.inputs):
            row, place = given.model_dump(exclude_none=True), f"inputs.{index}"
            if not set(needed) <= set(row) <= {*needed, *optional}:
                message = f"the task reads {', '.join(needed)}"
                if optional:
                    message += f", and perhaps {', '.join(optional)}"
                raise errors.FieldError(place, f"{message}.")
            # An error may also be about the row as a whole.
            names = {"text": place, "top_k": "top_k"}
            names |= {name: f"{place}.{name}" for name in row}
            for name in IMAGES:
                row[name] = await read_picture(row.get(name), names.get(name))
            inputs.append((Asked(**row, top_k=body.top_k), names))
        found = await preset.ask(body.task, inputs)
        data = [{"index": index, **one} for index, one in enumerate(found)]
        model = body.model or preset.name
        answer = {"model": model, "task": body.task}
        return {"object": "list", "data": data, **answer}

    @post("search", "/v1/search")
    async def search(body: bodies.SearchBody) -> dict:
        """Find pictures of the index by a text, a picture or both."""
        if service.find is None:
            message = "This server has no index: start it with `--store`."
            raise errors.RequestError(404, message)
        image = await read_picture(body.image, "image")
        asked = Asked(body.text, image, top_k=body.top_k, rerank=body.rerank)
        hits = await service.find(asked)
        if isinstance(hits, errors.Refused):
            raise errors.RequestError(400, hits.message, hits.about)
        return {"object": "list", "data": hits}

    return routes


def _encode(vector, encoding):
    """Encode a vector as a list, or as base64 of its 32-bit floats."""
    if encoding == "float":
        return vector
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


def _model_and_usage(body, preset, tokens):
    """Return the fields of an answer that tell the model and its tokens."""
    tokens = sum(tokens)
    usage = {"prompt_tokens": tokens, "total_tokens": tokens}
    return {"model": body.model or preset.name, "usage": usage}


async def _compare(service, body):
    """Score pairs, or documents for one query, or for one each.

    Args:
        service: `Service`.
        body: `bodies.CompareBody`.

    Returns:
        `(rows, answer)`: a dict with a `"score"` and perhaps a `"probability"`
        for each document, and other fields of the answer.
    """
    sides, kinds = [], []
    for names, values, most in (
        (bodies.QUERY, body.query, body.max_tokens_per_query),
        (bodies.DOCUMENTS, body.documents, body.max_tokens_per_doc),
    ):
        if values is not None:
            field, rule = body.name(names), body.long_texts
            sides.append(await service.read_inputs(field, values, rule, most))
            kinds.append(_kind(field, sides[-1]))
    # Pairs are on both sides.
    queries, documents = sides[0], sides[-1]
    if len(queries) not in (1, len(documents)):
        message = "must be one, or as many as the documents."
        raise errors.FieldError(body.name(bodies.QUERY), message)
    raw = body.raw_scores or body.query is None
    if kinds[0] == kinds[-1] != _PAIR:
        preset = service.preset(body.model, "embed")
        found = await preset.ask("embed", [*queries, *documents])
        vectors = np.array([vector for vector, _ in found], "float32")
        left, right = np.split(vectors, [len(queries)])
        scores = (left * right).sum(-1)
        if not raw:
            scores = ((1 + scores) / 2).clip(0, 1)
        rows = [{"score": score} for score in scores.tolist()]
        tokens = [count for _, count in found]
    else:
        preset = service.preset(body.model, "score")
        if len(queries) == 1:
            queries = queries * len(documents)
        rows = await preset.ask("score", list(map(_joined, queries, documents)))
        tokens = [row.pop("tokens") for row in rows]
        if not raw:
            for row in rows:
                row["score"] = float(match_shares(row["score"]))
    return rows, _model_and_usage(body, preset, tokens)


def _kind(field, inputs):
    """Return the names of the values that all inputs of a field have."""
    kinds = {asked.columns for asked, _ in inputs}
    if len(kinds) > 1 or (field == "pairs") != (_PAIR in kinds):
        message = "must be all texts or all pictures, or `pairs` of both."
        raise errors.FieldError(field, message)
    return kinds.pop()


def _joined(query, document):
    """Return a text and a picture as one input of `PresetClient.ask`."""
    text, image = query, document
    if query[0].text is None:
        text, image = document, query
    asked = dataclasses.replace(text[0], image=image[0].image)
    return asked, {**text[1], "image": image[1]["image"]}


async def _ask(service, body, verb, text):
    """Run a verb on a picture and the text in a field of the body."""
    preset = service.preset(body.model, verb)
    image = await read_picture(body.image, "image")
    asked = Asked(getattr(body, text), image, top_k=body.top_k)
    fields = {"image": "image", "text": text, "top_k": "top_k"}
    [found] = await preset.ask(verb, [(asked, fields)])
    return {**found, "model": body.model or preset.name}
