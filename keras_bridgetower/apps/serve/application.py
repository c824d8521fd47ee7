"""The FastAPI application: all routes and the errors that they share."""

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.admission import Admission
from keras_bridgetower.apps.serve.admission import EndsWithClient
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.routes import embeddings
from keras_bridgetower.apps.serve.routes import rerank
from keras_bridgetower.apps.serve.routes import search
from keras_bridgetower.apps.serve.routes import state
from keras_bridgetower.apps.serve.routes import tasks
from keras_bridgetower.version import __version__

# The routes are annotated as returning dict, so that pydantic writes the JSON,
# which is many times faster for vectors.
ROUTES = (embeddings, rerank, tasks, search, state)


def application(service, key=None, hosts=()):
    """Build the ASGI application of a service.

    Args:
        service: `Service`. This sets its `waiting`.
        key: str, the API key that clients must send, or None.
        hosts: tuple of str, as `Admission`.

    Returns:
        `Admission`, an ASGI application.
    """
    # Serves the files of /docs locally. ReDoc would still fetch its logo.
    app = FastAPIOffline(
        redoc_url=None, title="keras-bridgetower", version=__version__
    )
    for module in ROUTES:
        app.include_router(module.router(service))
    app.add_exception_handler(RequestError, _refused)
    app.add_exception_handler(RequestValidationError, _invalid)
    app.add_exception_handler(HTTPException, _http)
    app.add_exception_handler(Exception, _failed)
    paths = set(app.openapi()["paths"])
    admission = Admission(
        EndsWithClient(app),
        service.limits,
        service.metrics,
        key,
        paths,
        hosts,
    )
    service.waiting = lambda: admission.present
    return admission


def _answer(error):
    return fastapi.responses.JSONResponse(
        errors.error_body(error), error.status
    )


async def _refused(request, error):
    return _answer(error)


async def _invalid(request, error):
    # FastAPI does not parse bodies of other content types.
    if isinstance(error.body, bytes):
        received = request.headers.get("content-type") or "none"
        return _answer(
            RequestError(
                415,
                "The body must be JSON, sent with the header "
                f"`Content-Type: application/json`. Received: {received}",
            )
        )
    return _answer(errors.validation_error(error.errors()))


async def _http(request, error):
    # FastAPI turns any error while a body is read into status 400.
    cause = error.__cause__
    if isinstance(cause, RequestError):
        return _answer(cause)
    if error.status_code == 400:
        return _answer(
            RequestError(400, "The body must be JSON, encoded in UTF-8.")
        )
    return _answer(errors.status_error(error.status_code))


async def _failed(request, error):
    return _answer(errors.unexpected_error(error))
