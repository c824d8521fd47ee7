"""Tasks without a route of their own, yours included."""

import fastapi

from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.bodies import PredictBody
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import IMAGES
from keras_bridgetower.apps.serve.inputs import ToPredict
from keras_bridgetower.apps.serve.routes.reading import check_count


def router(service):
    """Build the route that runs any other task.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["tasks"], route_class=JSONRoute)

    @routes.post("/v1/predict")
    async def predict(body: PredictBody) -> dict:
        """The results of a task, such as entailment, for each row.

        /v1/models lists the tasks of each model.
        """
        preset = service.presets.of(body.model, body.task)
        if body.task not in preset.inputs:
            raise RequestError(
                400,
                f"task: {body.task!r} has a route of its own: see /docs.",
                "task",
            )
        check_count(service.limits, body.inputs, "inputs")
        asked, params = [], []
        for index, row in enumerate(body.inputs):
            param = f"inputs.{index}"
            values = row.model_dump(exclude_none=True)
            _check_names(values, *preset.inputs[body.task], param)
            fields = {name: f"{param}.{name}" for name in values}
            for name in IMAGES & set(values):
                values[name] = await service.pictures.read(
                    values[name], fields[name]
                )
            asked.append(ToPredict(**values, top_k=body.top_k))
            # An error may also be about the row as a whole.
            params.append({"text": param, "top_k": "top_k", **fields})
        found = await preset.ask(body.task, asked, params)
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
