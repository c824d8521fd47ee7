"""The FastAPI application: its routes, and what all of them share."""

import dataclasses
import functools
from collections.abc import Callable

import fastapi
from fastapi.exceptions import RequestValidationError
from fastapi_offline import FastAPIOffline
from starlette.exceptions import HTTPException

from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.admission import Admission
from keras_bridgetower.apps.serve.departure import EndsWithClient
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.fetching import PictureFetcher
from keras_bridgetower.apps.serve.limits import Limits
from keras_bridgetower.apps.serve.metrics import Metrics
from keras_bridgetower.apps.serve.pictures import PictureReader
from keras_bridgetower.apps.serve.presets import AskedPreset
from keras_bridgetower.apps.serve.presets import Presets
from keras_bridgetower.apps.serve.routes import asking
from keras_bridgetower.apps.serve.routes import embeddings
from keras_bridgetower.apps.serve.routes import matching
from keras_bridgetower.apps.serve.routes import predicting
from keras_bridgetower.apps.serve.routes import search
from keras_bridgetower.apps.serve.routes import state
from keras_bridgetower.version import __version__

# Each route says that it returns a dict. So FastAPI leaves the JSON to
# pydantic, which writes vectors many times faster.
ROUTES = (embeddings, matching, asking, predicting, search, state)


@dataclasses.dataclass
class Service:
    """What the routes need.

    Args:
        presets: `Presets`.
        limits: `Limits`.
        pictures: `PictureReader`.
        metrics: `Metrics`.
        missing: coroutine function without arguments that returns the names
            of presets that cannot answer now.
        find: coroutine function of an `inputs.ToFind` that returns a list of
            hits as dicts, or `Refused`; None without an index.
        waiting: callable without arguments, how many requests are present.
    """

    presets: Presets
    limits: Limits
    pictures: PictureReader
    metrics: Metrics
    missing: Callable
    find: Callable | None = None
    waiting: Callable = int


def service_of(plan, facts, ask, missing, find=None):
    """The service of a plan whose presets an engine asks.

    Args:
        plan: `Plan`.
        facts: list of dict, what `ServedPreset.facts` returns for each preset.
        ask: coroutine function of a preset's name, a verb and a list of
            inputs that returns a list of results.
        missing, find: as `Service`.
    """
    metrics = Metrics()

    def asked_preset(name, known):
        def count(verb, number):
            metrics.inputs.labels(name, verb).inc(number)

        return AskedPreset(name, known, functools.partial(ask, name), count)

    fetcher = PictureFetcher(plan.limits) if plan.limits.picture_hosts else None
    return Service(
        Presets(list(map(asked_preset, plan.names(), facts))),
        plan.limits,
        PictureReader(fetcher),
        metrics,
        missing,
        find,
    )


def application(service, key=None, hosts=()):
    """Return the application of a service.

    Args:
        service: `Service`. Its `waiting` is set here.
        key: str, the API key that clients must send, or None.
        hosts: tuple of str, as `Admission`.

    Returns:
        `Admission`, an ASGI application.
    """
    # Serves the files of /docs itself. ReDoc would still fetch its logo.
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
    # FastAPI leaves a body of another content type unread.
    if isinstance(error.body, bytes):
        received = request.headers.get("content-type") or "none"
        return _answer(
            RequestError(
                415,
                "The body must be JSON, sent with the header "
                f"`Content-Type: application/json`. Received: {received}",
            )
        )
    return _answer(errors.of_validation(error.errors()))


async def _http(request, error):
    # FastAPI turns whatever goes wrong while a body is read into status 400.
    cause = error.__cause__
    if isinstance(cause, RequestError):
        return _answer(cause)
    if error.status_code == 400:
        return _answer(
            RequestError(400, "The body must be JSON, encoded in UTF-8.")
        )
    return _answer(errors.of_status(error.status_code))


async def _failed(request, error):
    return _answer(errors.unexpected(error))
