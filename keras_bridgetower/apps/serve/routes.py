"""The routes that ask models, and the index.

They follow the shapes of OpenAI, of the hosted service, and of OPEA.
"""

import base64

import fastapi
import numpy as np

from keras_bridgetower.apps.serve import bodies
from keras_bridgetower.apps.serve.errors import FieldError
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.apps.serve.inputs import ToEmbed
from keras_bridgetower.apps.serve.inputs import ToFind
from keras_bridgetower.apps.serve.inputs import ToPredict

# Tokens of a text that OPEA's services read.
OPEA_TOKENS = 200
_RULES = {"Right": "cut_end", "Left": "cut_start"}


def router(service):
    """Build the routes.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(route_class=bodies.JSONRoute)

    @routes.post("/v1/embeddings", tags=["embeddings"])
    @routes.post("/embeddings", tags=["embeddings"])
    async def embeddings(body: bodies.EitherBody) -> dict:
        """Embed texts, pictures and pairs, in one of two shapes."""
        if isinstance(body, bodies.EmbeddingsBody):
            return await _embed_list(service, body)
        return await _embed_document(service, body)

    @routes.post("/v1/encode", tags=["embeddings"])
    async def encode(body: bodies.EncodeBody) -> dict:
        """Embed a text or a pair, as OPEA's model server does."""
        image = body.img_b64_str or None
        vector = await _embed_one(
            service, body.model, body.text, image, "img_b64_str"
        )
        return {"embedding": vector}

    @routes.post("/v1/rerank", tags=["matching"])
    async def rerank(body: bodies.RerankBody) -> dict:
        """Sort documents by relevance to a query, best first.

        The matching head scores a text with a picture; two texts or two
        pictures get the cosine of their vectors.
        """
        return await _rerank(service, body)

    @routes.post("/v1/score", tags=["matching"])
    async def score(body: bodies.ScoreBody) -> dict:
        """Return the logit of "match" of each pair; higher is better."""
        service.check_count(body.pairs, "pairs")
        rows = [pair.model_dump() for pair in body.pairs]
        fields = [
            {name: f"pairs.{index}.{name}" for name in row}
            for index, row in enumerate(rows)
        ]
        found, model = await _predict(service, body, "score", rows, fields)
        data = [
            {"object": "score", "index": index, **result}
            for index, result in enumerate(found)
        ]
        return {"object": "list", "data": data, "model": model}

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
            raise FieldError(
                "task", f"{body.task!r} has a route of its own: see /docs."
            )
        service.check_count(body.inputs, "inputs")
        rows = [row.model_dump(exclude_none=True) for row in body.inputs]
        fields = []
        for index, row in enumerate(rows):
            param = f"inputs.{index}"
            _check_names(row, *known[body.task], param)
            names = {name: f"{param}.{name}" for name in row}
            # An error may also be about the row as a whole.
            fields.append({"text": param, "top_k": "top_k", **names})
        found, model = await _predict(service, body, body.task, rows, fields)
        data = [{"index": index, **one} for index, one in enumerate(found)]
        return {
            "object": "list",
            "data": data,
            "task": body.task,
            "model": model,
        }

    @routes.post("/v1/search", tags=["search"])
    async def search(body: bodies.SearchBody) -> dict:
        """Find pictures of the index by a text, a picture or both."""
        if service.find is None:
            raise RequestError(
                404,
                "This server has no index. Make one with `keras-bridgetower "
                "search index` and start the server with `--store`.",
            )
        image = await service.pictures.read(body.image, "image")
        query = ToFind(body.text, image, body.top_k, body.rerank)
        hits = await service.find(query)
        if isinstance(hits, Refused):
            raise RequestError(400, hits.message, hits.about)
        return {"object": "list", "data": hits}

    return routes


async def _embed_list(service, body):
    """Answer in the shape of OpenAI and the hosted service."""
    preset = service.preset(body.model, "embed")
    service.check_count(body.input, "input")
    if body.dimensions not in (None, preset.width):
        raise FieldError(
            "dimensions",
            f"vectors of {preset.name} have {preset.width} dimensions. Leave "
            "the field out.",
        )
    rule = _RULES[body.truncation_direction] if body.truncate else REFUSE
    inputs, fields = await service.read_inputs(preset, body.input, "input")
    inputs = [ToEmbed(text, image, rule) for text, image in inputs]
    found = await preset.ask("embed", inputs, fields)
    tokens = sum(count for _, count in found)
    return {
        "object": "list",
        "data": [
            {
                "object": "embedding",
                "index": index,
                "embedding": _encode(vector, body.encoding_format),
            }
            for index, (vector, _) in enumerate(found)
        ],
        "model": body.model or preset.name,
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens},
    }


async def _embed_document(service, body):
    """Answer in the shape of OPEA's micro-service."""
    text = body.text if isinstance(body.text, str | None) else body.text.text
    image, param, sent = None, "image", {}
    if body.image is not None:
        param = "image.url" if body.image.url else "image.base64_image"
        image = body.image.url or body.image.base64_image
        sent = body.image.model_dump(exclude_none=True)
    vector = await _embed_one(service, body.model, text, image, param)
    return {"text": text, "embedding": vector, **sent}


async def _embed_one(service, model, text, image, param):
    preset = service.preset(model, "embed")
    data = await service.pictures.read(image, param)
    one = ToEmbed(text, data, "cut_end", OPEA_TOKENS)
    preset.check_kind(one.kind, param)
    fields = {"text": "text", "image": param}
    [(vector, _)] = await preset.ask("embed", [one], [fields])
    return vector


def _encode(vector, encoding):
    """Encode a vector as a list, or as base64 of its 32-bit floats."""
    if encoding == "float":
        return vector
    return base64.b64encode(np.asarray(vector, "<f4").tobytes()).decode()


async def _rerank(service, body):
    service.check_count(body.documents, "documents")
    query = _kind(body.query, "query")
    kinds = {
        _kind(document, f"documents.{index}")
        for index, document in enumerate(body.documents)
    }
    if len(kinds) > 1:
        raise FieldError(
            "documents",
            "must be all texts or all pictures, since scores of both are not "
            "comparable.",
        )
    alike = kinds == {query}
    preset = service.preset(body.model, "embed" if alike else "score")
    inputs, fields = await service.read_inputs(
        preset, body.documents, "documents"
    )
    [read], _ = await service.read_inputs(preset, [body.query], "query")
    if alike:
        of_query = {"text": "query", "image": "query"}
        inputs = [ToEmbed(*one) for one in (read, *inputs)]
        found = await preset.ask("embed", inputs, [of_query, *fields])
        vectors = np.array([vector for vector, _ in found], "float32")
        scores = (vectors[1:] @ vectors[0]).tolist()
    else:
        # Each pair has a document and the query.
        pairs = [
            ToPredict(
                text=read[0] if text is None else text,
                image=read[1] if image is None else image,
            )
            for text, image in inputs
        ]
        fields = [names | {query: "query"} for names in fields]
        found = await preset.ask("score", pairs, fields)
        scores = [result["score"] for result in found]
    results = []
    for index in np.argsort(-np.array(scores), kind="stable").tolist():
        result = {"index": index, "relevance_score": scores[index]}
        if body.return_documents:
            document = body.documents[index].model_dump(exclude_none=True)
            result["document"] = document
        results.append(result)
    return {
        "results": results[: body.top_n],
        "model": body.model or preset.name,
    }


def _kind(value, param):
    """Return "text" or "image"; reject pairs."""
    if value.text is not None and value.image is not None:
        raise FieldError(param, "give `text` or `image`, not both.")
    return "image" if value.text is None else "text"


async def _ask(service, body, verb, text):
    """Run a verb on a picture and the text in a field of the body."""
    row = {"image": body.image, "text": getattr(body, text)}
    fields = {"image": "image", "text": text, "top_k": "top_k"}
    [found], model = await _predict(service, body, verb, [row], [fields])
    return {**found, "model": model}


async def _predict(service, body, verb, rows, fields):
    """Run a verb on rows. Return the results, and the model's name.

    Args:
        service: `Service`.
        body: the body of the request.
        verb: str.
        rows: list of dict from the names of inputs to texts and pictures.
        fields: list of dict, the fields of the body that hold them.
    """
    preset = service.preset(body.model, verb)
    inputs = []
    for row, names in zip(rows, fields, strict=True):
        images = {
            name: await service.pictures.read(row[name], names[name])
            for name in IMAGES & set(row)
        }
        top_k = getattr(body, "top_k", 1)
        inputs.append(ToPredict(**{**row, **images}, top_k=top_k))
    found = await preset.ask(verb, inputs, fields)
    return found, body.model or preset.name


def _check_names(values, needed, optional, param):
    """Raise if a row lacks an input of the task, or has another."""
    if not set(needed) <= set(values) <= {*needed, *optional}:
        others = f", and perhaps {', '.join(optional)}" if optional else ""
        raise FieldError(
            param,
            f"the task reads {', '.join(needed)}{others}. "
            f"Received: {', '.join(values) or 'nothing'}",
        )
