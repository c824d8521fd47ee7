"""Route `/v1/search`, which searches an index of pictures."""

import fastapi

from keras_bridgetower.apps.serve.bodies import JSONRoute
from keras_bridgetower.apps.serve.bodies import SearchBody
from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.inputs import ToFind


def router(service):
    """Build the route that searches.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["search"], route_class=JSONRoute)

    @routes.post("/v1/search")
    async def search(body: SearchBody) -> dict:
        """Find pictures of the index by a text, a picture or both."""
        if service.find is None:
            raise RequestError(
                404,
                "This server has no index. Make one with "
                "`keras-bridgetower search index` and start the server with "
                "`--store`.",
            )
        image = None
        if body.image is not None:
            image = await service.pictures.read(body.image, "image")
        hits = await service.find(
            ToFind(body.text, image, body.top_k, body.rerank)
        )
        if isinstance(hits, Refused):
            raise RequestError(400, hits.message, hits.about)
        return {"object": "list", "data": hits}

    return routes
