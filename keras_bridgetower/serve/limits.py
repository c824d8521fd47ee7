"""`Limits`: what one request may ask for, and how many wait."""

import dataclasses

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import check_hosts

_COUNTS = (
    "body_bytes",
    "picture_bytes",
    "picture_pixels",
    "inputs",
    "concurrency",
    "queue",
    "batch_size",
)
_SECONDS = ("seconds", "picture_seconds")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts, as plain values.

    Args:
        body_bytes: int, bytes of the body of a request.
        picture_bytes: int, bytes of a picture that is fetched by its URL.
        picture_pixels: int, width times height of a picture.
        inputs: int, texts, pictures, pairs or documents of a request.
        concurrency: int, requests that are worked on at a time.
        queue: int, further requests that wait. All others are refused with
            status 429.
        seconds: number, time of a request from its arrival to its answer.
            After it the status is 504.
        batch_size: int, inputs of a forward pass.
        picture_hosts: tuple of str, hosts from which pictures are fetched by
            URL. Without any, URLs are refused.
        picture_seconds: number, time to fetch a picture.

    Raises:
        ValueError: a number that is not positive, or hosts that are no tuple
            of names.

    Example:

    ```python
    from keras_bridgetower.serve.limits import Limits

    Limits(queue=32, picture_hosts=("pictures.example.org",)).seconds  # 30.0
    ```
    """

    body_bytes: int = 20_000_000
    picture_bytes: int = 10_000_000
    picture_pixels: int = 40_000_000
    inputs: int = 256
    concurrency: int = 64
    queue: int = 256
    seconds: float = 30.0
    batch_size: int = 32
    picture_hosts: tuple = ()
    picture_seconds: float = 5.0

    def __post_init__(self):
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        for name in _SECONDS:
            check_above_zero(name, getattr(self, name))
        check_hosts("picture_hosts", self.picture_hosts)
