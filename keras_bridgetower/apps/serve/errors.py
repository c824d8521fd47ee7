"""What a request is told when it fails: one shape for every route."""

import dataclasses
import http
import logging

from keras_bridgetower.presets.errors import printable
from keras_bridgetower.presets.errors import short_text

LOG = logging.getLogger("keras_bridgetower.apps.serve")
# Characters of a message, which may repeat what a client has sent.
LONGEST = 1000
# What a status means, in a word that programs read.
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
    """A request that is refused.

    Args:
        status: int, the HTTP status.
        message: str, what is wrong, what is allowed and how to mend it.
        param: str, the field of the body that it is about, or None.
        code: str, a word that programs read. By default that of the status.
    """

    def __init__(self, status, message, param=None, code=None):
        super().__init__(message)
        self.status = status
        self.message = message
        self.param = param
        self.code = code or CODES.get(status, "error")


class InputError(ValueError):
    """An input that is refused, and which of its values is at fault.

    Args:
        about: str, `"text"`, `"image"` or `"top_k"`.
        message: str, what is wrong, what is allowed and how to mend it.
    """

    def __init__(self, about, message):
        super().__init__(message)
        self.about = about


@dataclasses.dataclass(frozen=True)
class Refused:
    """What stands in place of a result where an input is at fault.

    Args:
        message: str, what the verb said.
        about: str, which value of the input, as in `InputError`.
        code: str, as in `RequestError`.
    """

    message: str
    about: str = "text"
    code: str | None = None

    @classmethod
    def of(cls, error):
        """What an error of a verb says of its input."""
        return cls(str(error), getattr(error, "about", cls.about))


def error_body(error):
    """The body of an answer to a refused request.

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


def of_validation(errors):
    """The `RequestError` for what pydantic says of a body.

    Args:
        errors: list of dict, as `ValidationError.errors` returns it.
    """
    first = errors[0]
    kind, where = first["type"], _path(first)
    more = f" ({len(errors) - 1} more like this)" if len(errors) > 1 else ""
    if kind == "json_invalid":
        return RequestError(400, "The body must be JSON, encoded in UTF-8.")
    if kind == "extra_forbidden":
        said = f"The field {short_text(where)} is unknown here. Leave it out."
    elif kind == "missing":
        said = f"The field {short_text(where)} must be given."
    else:
        problem = first["msg"].removeprefix("Value error, ")
        received = first.get("input")
        said = f"{where or 'The body'}: {problem}. Received: {_kind(received)}"
    return RequestError(400, f"{said}{more}", where or None)


def of_status(status):
    """The `RequestError` for an HTTP status without words of its own."""
    try:
        phrase = http.HTTPStatus(status).phrase
    except ValueError:
        phrase = "Error"
    return RequestError(status, f"{phrase}.")


def unexpected(error):
    """The `RequestError` for a fault of the server, which is logged."""
    LOG.error("A request failed", exc_info=error)
    return RequestError(
        500, "The server failed on this request; its log says why."
    )


def _path(error):
    """The field that an error of pydantic is about, such as `input.3.image`."""
    # FastAPI says first that it was the body, and the name of a shape.
    parts = [
        str(part)
        for part in error["loc"]
        if part != "body" and not str(part).startswith("shape:")
    ]
    return ".".join(parts)


def _kind(value):
    """A received value, in few characters."""
    if isinstance(value, str | bytes | list | dict) and len(value) > 40:
        return f"a {type(value).__name__} of {len(value)}"
    return short_text(value)
