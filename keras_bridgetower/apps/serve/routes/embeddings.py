"""Routes `/v1/embeddings` and `/v1/encode`.

They follow the shapes of OpenAI, of the hosted service, and of OPEA.
"""

import base64

import fastapi
import numpy as np

from keras_bridgetower.apps.serve.bodies import EitherBody
from keras_bridgetower.apps.serve.bodies import EmbeddingsBody
from keras_bridgetower.apps.serve.bodies import EncodeBody
from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.errors import FieldError
from keras_bridgetower.apps.serve.inputs import REFUSE
from keras_bridgetower.apps.serve.inputs import ToEmbed

# Tokens of a text that OPEA's services read.
OPEA_TOKENS = 200
_RULES = {"Right": "cut_end", "Left": "cut_start"}


def router(service):
    """Build the routes that embed.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["embeddings"], route_class=JSONRoute)

    @routes.post("/v1/embeddings")
    @routes.post("/embeddings")
    async def embeddings(body: EitherBody) -> dict:
        """Embed texts, pictures and pairs, in one of two shapes."""
        if isinstance(body, EmbeddingsBody):
            return await _embed_list(service, body)
        return await _embed_document(service, body)

    @routes.post("/v1/encode")
    async def encode(body: EncodeBody) -> dict:
        """Embed a text or a pair, as OPEA's model server does."""
        image = body.img_b64_str or None
        vector = await _embed_one(
            service, body.model, body.text, image, "img_b64_str"
        )
        return {"embedding": vector}

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
    inputs, params = await service.read_inputs(preset, body.input, "input")
    inputs = [ToEmbed(text, image, rule) for text, image in inputs]
    found = await preset.ask("embed", inputs, params)
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
    image, param = None, "image"
    if body.image is not None:
        param = "image.url" if body.image.url else "image.base64_image"
        image = body.image.url or body.image.base64_image
    answer = {
        "text": text,
        "embedding": await _embed_one(service, body.model, text, image, param),
    }
    if body.image is not None:
        answer |= body.image.model_dump(exclude_none=True)
    return answer


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
