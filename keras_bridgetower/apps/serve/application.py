"""The FastAPI application: all routes and the errors that they share."""

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve import routes
from keras_bridgetower.apps.serve.admission import Admission
from keras_bridgetower.apps.serve.admission import error_response
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.version import __version__

_ERRORS = (RequestError, RequestValidationError, HTTPException, Exception)


def application(service, key=None):
    """Build the ASGI application of a service.

    Args:
        service: `Service`. This sets its `admission`.
        key: str, the API key that clients must send, or None.

    Returns:
        `Admission`, an ASGI application.
    """
    # Serves the files of /docs locally. ReDoc would still fetch its logo.
    app = FastAPIOffline(
        redoc_url=None, title="keras-bridgetower", version=__version__
    )
    app.include_router(_state(service))
    # Its routes are annotated as returning dict, so that pydantic writes the
    # JSON, which is many times faster for vectors.
    app.include_router(routes.router(service))
    for kind in _ERRORS:
        app.add_exception_handler(kind, _answer)
    service.admission = Admission(
        app,
        service.limits,
        service.metrics,
        key,
        set(app.openapi()["paths"]),
        service.plan.allowed_hosts,
    )
    return service.admission


def _state(service):
    """Build the routes about the server."""
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
            raise RequestError(503, f"Not ready: {', '.join(missing)}.")
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

    @routes.get("/v1/health_check")
    async def health_check() -> dict:
        """Check health, in the shape of OPEA's model server."""
        return {"message": "The server is running."}

    @routes.post("/v1/worker_get_status")
    async def worker_get_status() -> dict:
        """Return models and queue length, in the shape of OPEA's server."""
        return {
            "model_names": [preset.name for preset in presets],
            "speed": 1,
            "queue_length": service.admission.present,
        }

    return routes


async def _answer(request, error):
    """Answer with the error of a route, of FastAPI or of Starlette."""
    # FastAPI turns any error while a body is read into status 400.
    if isinstance(error.__cause__, RequestError):
        error = error.__cause__
    elif isinstance(error, RequestValidationError):
        error = _invalid(request, error)
    elif isinstance(error, HTTPException):
        error = RequestError(error.status_code, f"{error.detail}.")
    return error_response(error)


def _invalid(request, error):
    # FastAPI does not parse bodies of other content types.
    if not isinstance(error.body, bytes):
        return errors.validation_error(error.errors())
    received = request.headers.get("content-type") or "none"
    return RequestError(
        415,
        "The body must be JSON, sent with the header "
        f"`Content-Type: application/json`. Received: {received}",
    )
