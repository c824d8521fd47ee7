"""`Limits`: what one request may ask for, and how many wait."""

import dataclasses

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import check_hosts

_COUNTS = (
    "body_bytes",
    "picture_bytes",
    "picture_pixels",
    "request_pixels",
    "inputs",
    "concurrency",
    "queue",
    "batch_size",
)
_SECONDS = ("seconds", "body_seconds", "picture_seconds")


@dataclasses.dataclass(frozen=True)
class Limits:
    """What a server accepts, as plain values.

    Args:
        body_bytes: int, bytes of the body of a request.
        picture_bytes: int, bytes of a picture that is fetched by its URL.
        picture_pixels: int, width times height of a picture.
        request_pixels: int, pixels of all pictures of a request together.
        inputs: int, texts, pictures, pairs or documents of a request.
        concurrency: int, requests that are worked on at a time.
        queue: int, further requests that wait. All others are refused with
            status 429.
        seconds: number, time of a request from its arrival to its answer.
            After it the status is 504.
        body_seconds: number, time to receive the body of a request. After it
            the status is 408.
        batch_size: int, inputs of a forward pass.
        picture_hosts: tuple of str, hosts from which pictures are fetched by
            URL. Without any, URLs are refused.
        picture_seconds: number, time to fetch a picture, and processor time
            to decode one.

    Raises:
        ValueError: a number that is not positive, or hosts that are no tuple
            of names.

    Example:

    ```python
    from keras_bridgetower.apps.serve.limits import Limits

    Limits(queue=32, picture_hosts=("pictures.example.org",)).seconds  # 30.0
    ```
    """

    body_bytes: int = 20_000_000
    picture_bytes: int = 10_000_000
    picture_pixels: int = 40_000_000
    request_pixels: int = 160_000_000
    inputs: int = 256
    concurrency: int = 64
    queue: int = 256
    seconds: float = 30.0
    body_seconds: float = 10.0
    batch_size: int = 32
    picture_hosts: tuple = ()
    picture_seconds: float = 5.0

    def __post_init__(self):
        for name in _COUNTS:
            check_count(name, getattr(self, name))
        for name in _SECONDS:
            check_above_zero(name, getattr(self, name))
        check_hosts("picture_hosts", self.picture_hosts)
