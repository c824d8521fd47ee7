"""`Plan` and `Limits`: what a server serves and accepts, as plain values."""

import dataclasses
import os

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import check_hosts
from keras_bridgetower.presets.table import PRESETS

# The environment variable that holds the API key.
KEY = "KERAS_BRIDGETOWER_API_KEY"
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
    from keras_bridgetower.apps.serve.plan import Limits

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


@dataclasses.dataclass(frozen=True)
class Plan:
    """The presets of a server, its limits, and its index of pictures.

    Args:
        presets: tuple of str, as `from_preset` takes them. The first that can
            do what is asked answers requests that name none.
        limits: `Limits`.
        tokens: int, tokens of a text that `/v1/embeddings` reads, or None for
            each preset's own number.
        store: str, an index of `PictureSearch`, made by one of the presets;
            or None.
        replicas: int, processes for each preset.
        allowed_hosts: tuple of str, host names by which clients may call the
            server, such as that of a proxy. Empty means any name if there is
            a key, and else none. IP addresses and `localhost` are always
            allowed.

    Raises:
        ValueError: no preset, two of one name, no positive numbers, or hosts
            that are not a tuple of names.
    """

    presets: tuple
    limits: Limits = Limits()
    tokens: int | None = None
    store: str | None = None
    replicas: int = 1
    allowed_hosts: tuple = ()

    def __post_init__(self):
        check_count("replicas", self.replicas)
        check_hosts("allowed_hosts", self.allowed_hosts)
        if self.tokens is not None:
            check_count("tokens", self.tokens)
        names = self.names()
        if not names or len(set(names)) < len(names):
            raise ValueError(
                "`presets` must be at least one, each with a name of its own. "
                f"Received: presets={list(self.presets)}"
            )

    @classmethod
    def of(cls, presets, limits=None, **values):
        """A plan from what a file of JSON or YAML can hold.

        Args:
            presets: list of str.
            limits: dict of the values of `Limits`, or None.
            **values: the other values of the class.
        """
        limits = dict(limits or {})
        if "picture_hosts" in limits:
            limits["picture_hosts"] = tuple(limits["picture_hosts"])
        if "allowed_hosts" in values:
            values["allowed_hosts"] = tuple(values["allowed_hosts"])
        presets = tuple(whole_name(preset) for preset in presets)
        return cls(presets, Limits(**limits), **values)

    def names(self):
        """The names by which clients call the presets, a list of str."""
        return [served_name(preset) for preset in self.presets]

    def searched(self):
        """The name of the preset that made the index, or None without one.

        Raises:
            ValueError: the index is of a preset that is not served, or there
                is none.
        """
        if self.store is None:
            return None
        from keras_bridgetower.apps.search.header import check_whole
        from keras_bridgetower.apps.search.header import needed_header
        from keras_bridgetower.apps.search.stores.opened import open_store

        store = open_store(self.store)
        header = needed_header(store)
        check_whole(store, header)
        store.close()
        if header["preset"] not in self.presets:
            raise ValueError(
                "`store` must be an index of a preset that is served. Serve "
                f"{header['preset']!r} too. Received: store={self.store!r}, "
                f"presets={list(self.presets)}"
            )
        return served_name(header["preset"])


def whole_name(preset):
    """A preset as other processes find it: paths are made absolute."""
    if preset in PRESETS or not os.path.exists(preset):
        return preset
    return os.path.abspath(preset)


def served_name(preset):
    """The name by which clients call a preset: the last part of a path."""
    return preset.rstrip("/").rpartition("/")[2]
