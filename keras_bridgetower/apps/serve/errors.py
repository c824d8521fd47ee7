"""Error responses, in one shape for every route."""

import dataclasses
import http
import logging

from keras_bridgetower.presets.errors import printable
from keras_bridgetower.presets.errors import short_text

LOG = logging.getLogger("keras_bridgetower.apps.serve")
# Characters of a message, which may quote the input of a client.
LONGEST = 1000
# Machine-readable codes of statuses.
CODES = {
    400: "invalid_request",
    401: "invalid_api_key",
    403: "unknown_host",
    404: "not_found",
    405: "method_not_allowed",
    408: "body_timed_out",
    413: "too_large",
    415: "unsupported_media_type",
    429: "queue_full",
    500: "internal_error",
    503: "not_ready",
    504: "timed_out",
}


class RequestError(Exception):
    """A rejected request.

    Args:
        status: int, the HTTP status.
        message: str, the problem, the allowed values and the fix.
        param: str, the field of the body at fault, or None.
        code: str, the machine-readable code. Defaults to that of the status.
    """

    def __init__(self, status, message, param=None, code=None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code or CODES.get(status, "error")


class InputError(ValueError):
    """An invalid input of a request.

    Args:
        about: str, the value at fault: `"text"`, `"image"` or `"top_k"`.
        message: str, the problem, the allowed values and the fix.
    """

    def __init__(self, about, message):
        super().__init__(message)
        self.about = about


@dataclasses.dataclass(frozen=True)
class Refused:
    """An error in place of the result of one input.

    Args:
        message: str, the error of the verb.
        about: str, the value at fault, as in `InputError`.
        code: str, as in `RequestError`.
    """

    message: str
    about: str = "text"
    code: str | None = None

    @classmethod
    def of(cls, error):
        """Convert the error that a verb raised."""
        return cls(str(error), getattr(error, "about", cls.about))


def error_body(error):
    """Build the body of an error response.

    Args:
        error: `RequestError`.

    Returns:
        dict, in the shape of OpenAI's errors.
    """
    message = printable(error.message)
    if len(message) > LONGEST:
        message = f"{message[:LONGEST]}…"
    kind = "server_error" if error.status >= 500 else "invalid_request_error"
    return {
        "error": {
            "message": message,
            "type": kind,
            "param": error.param,
            "code": error.code,
        }
    }


def validation_error(errors):
    """Convert errors of pydantic to a `RequestError`.

    Args:
        errors: list of dict, from `ValidationError.errors()`.
    """
    first = errors[0]
    kind, where = first["type"], _path(first)
    more = _count_more(len(errors) - 1)
    if kind == "json_invalid":
        return RequestError(400, "The body must be JSON, encoded in UTF-8.")
    if kind == "extra_forbidden":
        message = f"The field {short_text(where)} is unknown. Leave it out."
    elif kind == "missing":
        message = f"The field {short_text(where)} is required."
    else:
        problem = first["msg"].removeprefix("Value error, ")
        received = first.get("input")
        message = (
            f"{where or 'The body'}: {problem}. Received: {_kind(received)}"
        )
    return RequestError(400, f"{message}{more}", where or None)


def status_error(status):
    """Build the `RequestError` of an HTTP status, with its standard phrase."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return RequestError(status, f"{phrase}.")


def unexpected_error(error):
    """Log an unexpected error and convert it to a `RequestError`."""
    LOG.error("A request failed", exc_info=error)
    return RequestError(500, "The server failed on this request; see its log.")


def _count_more(count):
    if count < 1:
        return ""
    return f" ({count} more error{'s' if count > 1 else ''})"


def _path(error):
    """Return the field of an error of pydantic, such as `input.3.image`."""
    # FastAPI adds "body" and the name of a shape.
    parts = [
        str(part)
        for part in error["loc"]
        if part != "body" and not str(part).startswith("shape:")
    ]
    return ".".join(parts)


def _kind(value):
    """Describe a received value in few characters."""
    if isinstance(value, str | bytes | list | dict) and len(value) > 40:
        return f"a {type(value).__name__} of {len(value)}"
    return short_text(value)
