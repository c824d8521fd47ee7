"""Questions about a picture, and blanks in a text about it."""

import fastapi

from keras_bridgetower.apps.serve.bodies import AnswerBody
from keras_bridgetower.apps.serve.bodies import FillBody
from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.inputs import ToAsk


def router(service):
    """The routes that ask.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["questions"], route_class=JSONRoute)

    @routes.post("/v1/answer")
    async def answer(body: AnswerBody) -> dict:
        """The best answers to a question about a picture."""
        preset = service.presets.of(body.model, "answer")
        image = await service.pictures.read(body.image, "image")
        asked = ToAsk(image, body.question, body.top_k)
        fields = {"text": "question", "image": "image", "top_k": "top_k"}
        [found] = await preset.ask("answer", [asked], [fields])
        return {
            "answers": [{"answer": text, "score": x} for text, x in found],
            "model": body.model or preset.name,
        }

    @routes.post("/v1/fill")
    async def fill(body: FillBody) -> dict:
        """The best tokens for each `<mask>` of a text about a picture."""
        preset = service.presets.of(body.model, "fill")
        image = await service.pictures.read(body.image, "image")
        asked = ToAsk(image, body.text, body.top_k)
        fields = {name: name for name in ("text", "image", "top_k")}
        [(masks, filled)] = await preset.ask("fill", [asked], [fields])
        return {
            "masks": [
                [{"token": token, "probability": p} for token, p in tokens]
                for tokens in masks
            ],
            "filled": filled,
            "model": body.model or preset.name,
        }

    return routes
