"""What the server says of itself: health, models, metrics."""

import fastapi
from fastapi import responses

from keras_bridgetower.apps.serve.errors import RequestError


def router(service):
    """The routes about the server.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["server"])

    @routes.get("/health")
    async def health() -> dict:
        """Whether the server can answer at all."""
        return {"status": "ok"}

    @routes.get("/ready")
    async def ready() -> dict:
        """Whether all models are loaded and warm."""
        missing = await service.missing()
        if missing:
            raise RequestError(503, f"Not ready: {', '.join(missing)}.")
        return {"status": "ready"}

    @routes.get("/metrics")
    async def metrics():
        """Counts for Prometheus."""
        text, kind = service.metrics.page()
        return responses.Response(text, media_type=kind)

    @routes.get("/v1/models")
    async def models() -> dict:
        """The presets that are served."""
        return {
            "object": "list",
            "data": [
                {
                    "id": preset.name,
                    "object": "model",
                    "owned_by": "keras-bridgetower",
                    "verbs": preset.verbs,
                }
                for preset in service.presets
            ],
        }

    @routes.get("/v1/health_check")
    async def health_check() -> dict:
        """As OPEA's model server."""
        return {"message": "The server is running."}

    @routes.post("/v1/worker_get_status")
    async def worker_get_status() -> dict:
        """As OPEA's model server: the models, and how many requests wait."""
        return {
            "model_names": [preset.name for preset in service.presets],
            "speed": 1,
            "queue_length": service.waiting(),
        }

    return routes
