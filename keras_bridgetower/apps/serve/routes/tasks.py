"""Routes `/v1/answer`, `/v1/fill`, and `/v1/predict` for every other task."""

import fastapi

from keras_bridgetower.apps.serve.bodies import AnswerBody
from keras_bridgetower.apps.serve.bodies import FillBody
from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.bodies import PredictBody
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import ToAsk
from keras_bridgetower.apps.serve.inputs import ToPredict
from keras_bridgetower.apps.serve.service import check_count


def router(service):
    """Build the routes that answer, fill and predict.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(route_class=JSONRoute)

    @routes.post("/v1/answer", tags=["questions"])
    async def answer(body: AnswerBody) -> dict:
        """Return the best answers to a question about a picture."""
        preset = service.presets.find(body.model, "answer")
        image = await service.pictures.read(body.image, "image")
        question = ToAsk(image, body.question, body.top_k)
        fields = {"text": "question", "image": "image", "top_k": "top_k"}
        [found] = await preset.ask("answer", [question], [fields])
        return {
            "answers": [{"answer": text, "score": x} for text, x in found],
            "model": body.model or preset.name,
        }

    @routes.post("/v1/fill", tags=["questions"])
    async def fill(body: FillBody) -> dict:
        """Return the best tokens for each `<mask>` of a text on a picture."""
        preset = service.presets.find(body.model, "fill")
        image = await service.pictures.read(body.image, "image")
        masked = ToAsk(image, body.text, body.top_k)
        fields = {name: name for name in ("text", "image", "top_k")}
        [(masks, filled)] = await preset.ask("fill", [masked], [fields])
        return {
            "masks": [
                [{"token": token, "probability": p} for token, p in tokens]
                for tokens in masks
            ],
            "filled": filled,
            "model": body.model or preset.name,
        }

    @routes.post("/v1/predict", tags=["tasks"])
    async def predict(body: PredictBody) -> dict:
        """Return the results of a task, such as entailment, for each row.

        /v1/models lists the tasks of each model.
        """
        preset = service.presets.find(body.model, body.task)
        if body.task not in preset.inputs:
            raise RequestError(
                400,
                f"task: {body.task!r} has a route of its own: see /docs.",
                "task",
            )
        check_count(service.limits, body.inputs, "inputs")
        inputs, params = [], []
        for index, row in enumerate(body.inputs):
            param = f"inputs.{index}"
            values = row.model_dump(exclude_none=True)
            _check_names(values, *preset.inputs[body.task], param)
            fields = {name: f"{param}.{name}" for name in values}
            for name in IMAGES & set(values):
                values[name] = await service.pictures.read(
                    values[name], fields[name]
                )
            inputs.append(ToPredict(**values, top_k=body.top_k))
            # An error may also be about the row as a whole.
            params.append({"text": param, "top_k": "top_k", **fields})
        found = await preset.ask(body.task, inputs, params)
        return {
            "object": "list",
            "data": [
                {"index": index, **result} for index, result in enumerate(found)
            ],
            "task": body.task,
            "model": body.model or preset.name,
        }

    return routes


def _check_names(values, needed, optional, param):
    """Raise if a row lacks an input of the task, or has another."""
    if not set(needed) <= set(values) <= {*needed, *optional}:
        others = f", and perhaps {', '.join(optional)}" if optional else ""
        raise RequestError(
            400,
            f"{param}: the task reads {', '.join(needed)}{others}. "
            f"Received: {', '.join(values) or 'nothing'}",
            param,
        )
