"""`Plan` and `Limits`: the settings of a server, as plain values."""

import dataclasses

from keras_bridgetower.checks import check_above_zero
from keras_bridgetower.presets.table import preset_name

# Environment variable of the API key.
KEY = "KERAS_BRIDGETOWER_API_KEY"


@dataclasses.dataclass(frozen=True)
class Limits:
    """Limits of requests.

    Args:
        body_bytes: int, bytes of a request body.
        picture_pixels: int, width times height of a picture.
        request_pixels: int, total pixels of the pictures of a request.
        inputs: int, texts, pictures, pairs or documents per request.
        concurrency: int, requests processed at a time.
        queue: int, requests that may wait. More get status 429.
        seconds: number, time to answer a request. After it the status is 504.
        body_seconds: number, time to receive a body. After it the status is
            408.
        batch_size: int, inputs per forward pass.
        picture_seconds: number, processor time to decode a picture.

    Raises:
        ValueError: a number is not positive.
    """

    body_bytes: int = 20_000_000
    picture_pixels: int = 40_000_000
    request_pixels: int = 160_000_000
    inputs: int = 256
    concurrency: int = 64
    queue: int = 256
    seconds: float = 30.0
    body_seconds: float = 10.0
    batch_size: int = 32
    picture_seconds: float = 5.0

    def __post_init__(self):
        for name, value in vars(self).items():
            check_above_zero(name, value)


@dataclasses.dataclass(frozen=True)
class Plan:
    """The presets of a server, its limits, and its index of pictures.

    Args:
        presets: tuple of str, as for `from_preset`. Requests without a model
            name go to the first preset that supports them.
        limits: `Limits`.
        tokens: int, tokens of a text that `/v1/embeddings` reads, or None for
            the default of each preset.
        store: str, an index of `PictureSearch` made by one of the presets, or
            None.
        replicas: int, processes per preset.
        allowed_hosts: tuple of str, host names that requests may use, such as
            that of a proxy. If empty, any name is allowed with a key and none
            without. IP addresses and `localhost` are always allowed.
        strict: bool, whether to reject unknown fields of requests, which
            answers otherwise name.

    Raises:
        ValueError: no presets, two of one name, or invalid host names.
    """

    presets: tuple
    limits: Limits = Limits()
    tokens: int | None = None
    store: str | None = None
    replicas: int = 1
    allowed_hosts: tuple = ()
    strict: bool = False

    def __post_init__(self):
        for host in self.allowed_hosts:
            if set("/:@") & set(host):
                raise ValueError(
                    "`allowed_hosts` must be host names, such as "
                    "'example.org', without scheme, port or path. "
                    f"Received: {host!r}"
                )
        names = self.names()
        if not names or len(set(names)) < len(names):
            raise ValueError(f"`presets` must have distinct names: {names}")

    @classmethod
    def from_values(cls, presets, limits=None, **values):
        """Build a plan from a JSON or YAML file, with `limits` as a dict."""
        presets = tuple(preset_name(preset) for preset in presets)
        return cls(presets, Limits(**limits or {}), **values)

    def names(self):
        return [served_name(preset) for preset in self.presets]

    def searched(self):
        """Return the name of the preset that made the index, or None.

        Raises:
            ValueError: there is no index in the store, or its preset is not
                served.
        """
        if self.store is None:
            return None
        from keras_bridgetower.apps.search import header as headers

        with headers.opened(self.store) as store:
            header = headers.read_header(store)
            headers.check_whole(store, header)
        if header["preset"] not in self.presets:
            raise ValueError(
                "`store` is an index of another preset. Serve "
                f"{header['preset']!r} too."
            )
        return served_name(header["preset"])


def served_name(preset):
    """Return the name of a preset for clients: the last part of a path."""
    return preset.rstrip("/").rpartition("/")[2]
