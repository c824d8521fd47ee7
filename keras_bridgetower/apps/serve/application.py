"""The FastAPI application: routes and their errors."""

import base64

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
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.apps.serve.service import read_picture
from keras_bridgetower.metrics.calibration import match_shares
from keras_bridgetower.version import __version__

_RULES = {"Right": "cut_end", "Left": "cut_start"}


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


def _model_routes(service):
    """Build the routes that ask models, and the index.

    They follow the shapes of OpenAI and of the hosted service.
    """
    routes = fastapi.APIRouter(route_class=bodies.JSONRoute)

    @routes.post("/v1/embeddings", tags=["embeddings"])
    @routes.post("/embeddings", tags=["embeddings"])
    async def embeddings(body: bodies.EmbeddingsBody) -> dict:
        """Embed texts, pictures and pairs."""
        return await _embed(service, body)

    @routes.post("/v1/rerank", tags=["matching"])
    @routes.post("/v2/rerank", tags=["matching"])
    async def rerank(body: bodies.RerankBody) -> dict:
        """Sort documents by relevance to a query, best first.

        The matching head scores a text with a picture; two texts or two
        pictures get the cosine of their vectors. Both are scaled to 0..1.
        """
        return await _rerank(service, body)

    @routes.post("/rerank", tags=["matching"])
    async def rerank_texts(body: bodies.RerankTextsBody) -> list[dict]:
        """Sort documents, as text-embeddings-inference does.

        Scores are between 0 and 1 unless `raw_scores` is given.
        """
        asked = bodies.RerankBody(query=body.query, documents=body.texts)
        answer = await _rerank(service, asked, "texts", body.raw_scores)
        found = [
            {"index": one["index"], "score": one["relevance_score"]}
            for one in answer["results"]
        ]
        if body.return_text:
            for one in found:
                one["text"] = body.texts[one["index"]]
        return found

    @routes.post("/v1/score", tags=["matching"])
    async def score(body: bodies.ScoreBody) -> dict:
        """Return the score and the probability of each pair.

        The score is the logit of "match" minus that of no match. A ranking
        head has no probability.
        """
        answer = await _predict_list(service, body, "score", "pairs")
        for one in answer["data"]:
            one["object"] = "score"
        return answer

    @routes.post("/v1/answer", tags=["questions"])
    async def answer(body: bodies.AnswerBody) -> dict:
        """Return the best answers to a question about a picture."""
        return await _ask(service, body, "answer", "question")

    @routes.post("/v1/fill", tags=["questions"])
    async def fill(body: bodies.FillBody) -> dict:
        """Return the best tokens for each `<mask>` of a text on a picture."""
        return await _ask(service, body, "fill", "text")

    @routes.post("/v1/predict", tags=["tasks"])
    async def predict(body: bodies.PredictBody) -> dict:
        """Return the results of a task, such as entailment, for each row.

        /v1/models lists the tasks of each model.
        """
        known = service.preset(body.model, body.task).inputs
        if body.task not in known:
            message = f"{body.task!r} has a route of its own: see /docs."
            raise errors.FieldError("task", message)
        needed, optional = known[body.task]
        for index, row in enumerate(body.inputs):
            given = set(row.model_dump(exclude_none=True))
            if not set(needed) <= given <= {*needed, *optional}:
                message = f"the task reads {', '.join(needed)}"
                if optional:
                    message += f", and perhaps {', '.join(optional)}"
                raise errors.FieldError(f"inputs.{index}", f"{message}.")
        answer = await _predict_list(service, body, body.task, "inputs")
        return {**answer, "task": body.task}

    @routes.post("/v1/search", tags=["search"])
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


async def _embed(service, body):
    """Answer in the shape of OpenAI and the hosted service."""
    preset = service.preset(body.model, "embed")
    if body.dimensions not in (None, preset.width):
        message = f"vectors of {preset.name} have {preset.width} dimensions."
        raise errors.FieldError("dimensions", message)
    rule = _RULES[body.truncation_direction] if body.truncate else REFUSE
    inputs, fields = await service.read_inputs(preset, body.input, "input")
    inputs = [Asked(*one, long_texts=rule) for one in inputs]
    found = await preset.ask("embed", inputs, fields)
    tokens = sum(count for _, count in found)
    vectors = [_encode(one, body.encoding_format) for one, _ in found]
    return {
        "object": "list",
        "data": [
            {"object": "embedding", "index": index, "embedding": vector}
            for index, vector in enumerate(vectors)
        ],
        "model": body.model or preset.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


def _encode(vector, encoding):
    """Encode a vector as a list, or as base64 of its 32-bit floats."""
    if encoding == "float":
        return vector
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


async def _rerank(service, body, param="documents", raw=False):
    """Sort documents, which are the field `param` for the client.

    Scores are scaled to 0..1, unless they are asked for `raw`.
    """
    query = _kind(body.query, "query")
    kinds = {
        _kind(document, f"{param}.{index}")
        for index, document in enumerate(body.documents)
    }
    if len(kinds) > 1:
        raise errors.FieldError(param, "must be all texts or all pictures.")
    alike = kinds == {query}
    preset = service.preset(body.model, "embed" if alike else "score")
    read = service.read_inputs
    inputs, fields = await read(preset, body.documents, param)
    [asked], _ = await read(preset, [body.query], "query")
    if alike:
        of_query = {"text": "query", "image": "query"}
        inputs = [Asked(*one) for one in (asked, *inputs)]
        found = await preset.ask("embed", inputs, [of_query, *fields])
        vectors = np.array([vector for vector, _ in found], "float32")
        scores = vectors[1:] @ vectors[0]
        shares = (1 + scores) / 2
    else:
        # Each pair has a document and the query.
        pairs = [
            Asked(
                text=asked[0] if text is None else text,
                image=asked[1] if image is None else image,
            )
            for text, image in inputs
        ]
        fields = [names | {query: "query"} for names in fields]
        found = await preset.ask("score", pairs, fields)
        scores = np.array([result["score"] for result in found])
        shares = match_shares(scores)
    order = np.argsort(-scores, kind="stable")[: body.top_n].tolist()
    shown = (scores if raw else shares.clip(0, 1)).tolist()
    results = [{"index": i, "relevance_score": shown[i]} for i in order]
    if body.return_documents:
        for result in results:
            document = body.documents[result["index"]]
            result["document"] = document.model_dump(exclude_none=True)
    return {"results": results, "model": body.model or preset.name}


def _kind(value, param):
    if value.text is not None and value.image is not None:
        raise errors.FieldError(param, "give `text` or `image`, not both.")
    return "image" if value.text is None else "text"


async def _ask(service, body, verb, text):
    """Run a verb on a picture and the text in a field of the body."""
    row = {"image": body.image, "text": getattr(body, text)}
    fields = {"image": "image", "text": text, "top_k": "top_k"}
    [found], model = await _predict(service, body, verb, [row], [fields])
    return {**found, "model": model}


async def _predict_list(service, body, verb, param):
    """Run a verb on the rows in a field of the body."""
    values = getattr(body, param)
    service.check_count(values, param)
    rows = [value.model_dump(exclude_none=True) for value in values]
    fields = []
    for index, row in enumerate(rows):
        place = f"{param}.{index}"
        names = {name: f"{place}.{name}" for name in row}
        # An error may also be about the row as a whole.
        fields.append({"text": place, "top_k": "top_k", **names})
    found, model = await _predict(service, body, verb, rows, fields)
    data = [{"index": index, **one} for index, one in enumerate(found)]
    return {"object": "list", "data": data, "model": model}


async def _predict(service, body, verb, rows, fields):
    """Run a verb on rows. Return the results, and the model's name.

    Args:
        service: `Service`.
        body: the body of the request.
        verb: str.
        rows: list of dict from names of inputs to texts and pictures.
        fields: list of dict from the same names to fields of the body.
    """
    preset = service.preset(body.model, verb)
    inputs = []
    for row, names in zip(rows, fields, strict=True):
        images = {
            name: await read_picture(row[name], names[name])
            for name in IMAGES
            if name in row
        }
        top_k = getattr(body, "top_k", 1)
        inputs.append(Asked(**{**row, **images}, top_k=top_k))
    found = await preset.ask(verb, inputs, fields)
    return found, body.model or preset.name
