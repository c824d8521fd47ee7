"""Routes about the server: health, readiness, models, metrics."""

import fastapi
from fastapi import responses

from keras_bridgetower.apps.serve.errors import RequestError


def router(service):
    """Build the routes about the server.

    Args:
        service: `Service`.
    """
    routes = fastapi.APIRouter(tags=["server"])

    @routes.get("/health")
    async def health() -> dict:
        """Return ok while the server runs."""
        return {"status": "ok"}

    @routes.get("/ready")
    async def ready() -> dict:
        """Return ready once all models are loaded and warm."""
        missing = await service.missing()
        if missing:
            raise RequestError(503, f"Not ready: {', '.join(missing)}.")
        return {"status": "ready"}

    @routes.get("/metrics")
    async def metrics():
        """Return metrics for Prometheus."""
        text, kind = service.metrics.page()
        return responses.Response(text, media_type=kind)

    @routes.get("/v1/models")
    async def models() -> dict:
        """List the served presets."""
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
        """Check health, in the shape of OPEA's model server."""
        return {"message": "The server is running."}

    @routes.post("/v1/worker_get_status")
    async def worker_get_status() -> dict:
        """Return models and queue length, in the shape of OPEA's server."""
        return {
            "model_names": [preset.name for preset in service.presets],
            "speed": 1,
            "queue_length": service.waiting(),
        }

    return routes
