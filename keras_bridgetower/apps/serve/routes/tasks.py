"""Routes of tasks: score, answer, fill, predict for all others; and search."""

import fastapi

from keras_bridgetower.apps.serve.bodies import AnswerBody
from keras_bridgetower.apps.serve.bodies import FillBody
from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.bodies import PredictBody
from keras_bridgetower.apps.serve.bodies import ScoreBody
from keras_bridgetower.apps.serve.bodies import SearchBody
from keras_bridgetower.apps.serve.errors import FieldError
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import ToFind
from keras_bridgetower.apps.serve.inputs import ToPredict


def router(service):
    """Build the routes that score, answer, fill, predict and search.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(route_class=JSONRoute)

    async def asked(body, verb, rows, fields, top_k=1):
        """Run a verb on rows. Return the results, and the model's name.

        Args:
            body: the body of the request.
            verb: str.
            rows: list of dict from the names of inputs to texts and pictures.
            fields: list of dict, the fields of the body that hold them.
            top_k: int, results per row.
        """
        preset = service.preset(body.model, verb)
        inputs = []
        for row, names in zip(rows, fields, strict=True):
            images = {
                name: await service.pictures.read(row[name], names[name])
                for name in IMAGES & set(row)
            }
            inputs.append(ToPredict(**{**row, **images}, top_k=top_k))
        found = await preset.ask(verb, inputs, fields)
        return found, body.model or preset.name

    @routes.post("/v1/score", tags=["matching"])
    async def score(body: ScoreBody) -> dict:
        """Return the logit of "match" of each pair; higher is better."""
        service.check_count(body.pairs, "pairs")
        rows = [pair.model_dump() for pair in body.pairs]
        fields = [
            {name: f"pairs.{index}.{name}" for name in row}
            for index, row in enumerate(rows)
        ]
        found, model = await asked(body, "score", rows, fields)
        return {
            "object": "list",
            "data": [
                {"object": "score", "index": index, **result}
                for index, result in enumerate(found)
            ],
            "model": model,
        }

    @routes.post("/v1/answer", tags=["questions"])
    async def answer(body: AnswerBody) -> dict:
        """Return the best answers to a question about a picture."""
        row = {"image": body.image, "text": body.question}
        fields = {"image": "image", "text": "question", "top_k": "top_k"}
        [found], model = await asked(
            body, "answer", [row], [fields], body.top_k
        )
        return {**found, "model": model}

    @routes.post("/v1/fill", tags=["questions"])
    async def fill(body: FillBody) -> dict:
        """Return the best tokens for each `<mask>` of a text on a picture."""
        row = {"image": body.image, "text": body.text}
        fields = {name: name for name in ("image", "text", "top_k")}
        [found], model = await asked(body, "fill", [row], [fields], body.top_k)
        return {**found, "model": model}

    @routes.post("/v1/predict", tags=["tasks"])
    async def predict(body: PredictBody) -> dict:
        """Return the results of a task, such as entailment, for each row.

        /v1/models lists the tasks of each model.
        """
        preset = service.preset(body.model, body.task)
        if body.task not in preset.inputs:
            raise FieldError(
                "task", f"{body.task!r} has a route of its own: see /docs."
            )
        service.check_count(body.inputs, "inputs")
        rows = [row.model_dump(exclude_none=True) for row in body.inputs]
        fields = []
        for index, row in enumerate(rows):
            param = f"inputs.{index}"
            _check_names(row, *preset.inputs[body.task], param)
            names = {name: f"{param}.{name}" for name in row}
            # An error may also be about the row as a whole.
            fields.append({"text": param, "top_k": "top_k", **names})
        found, model = await asked(body, body.task, rows, fields, body.top_k)
        return {
            "object": "list",
            "data": [
                {"index": index, **result} for index, result in enumerate(found)
            ],
            "task": body.task,
            "model": model,
        }

    @routes.post("/v1/search", tags=["search"])
    async def search(body: SearchBody) -> dict:
        """Find pictures of the index by a text, a picture or both."""
        if service.find is None:
            raise RequestError(
                404,
                "This server has no index. Make one with "
                "`keras-bridgetower search index` and start the server with "
                "`--store`.",
            )
        image = await service.pictures.read(body.image, "image")
        hits = await service.find(
            ToFind(body.text, image, body.top_k, body.rerank)
        )
        if isinstance(hits, Refused):
            raise RequestError(400, hits.message, hits.about)
        return {"object": "list", "data": hits}

    return routes


def _check_names(values, needed, optional, param):
    """Raise if a row lacks an input of the task, or has another."""
    if not set(needed) <= set(values) <= {*needed, *optional}:
        others = f", and perhaps {', '.join(optional)}" if optional else ""
        raise FieldError(
            param,
            f"the task reads {', '.join(needed)}{others}. "
            f"Received: {', '.join(values) or 'nothing'}",
        )
