"""Errors of requests, and of their inputs."""

import dataclasses
import logging

LOG = logging.getLogger("keras_bridgetower.apps.serve")
# Machine-readable codes of statuses.
_CODES = {
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
        self.code = code or _CODES.get(status, "error")


class FieldError(RequestError):
    """A request with status 400 for one of its fields; see `RequestError`."""

    def __init__(self, param, message, code=None):
        super().__init__(400, f"{param}: {message}", param, code)


class TooManyRequests(RequestError):
    """A request while the queue is full."""

    def __init__(self):
        super().__init__(429, "Too many requests are waiting. Try again later.")


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
        return cls(str(error), getattr(error, "about", "text"))
