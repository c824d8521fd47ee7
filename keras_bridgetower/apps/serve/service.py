"""`Service`: presets, pictures and metrics, as the routes use them."""

import dataclasses
import functools
import os
from collections.abc import Callable

import prometheus_client
from prometheus_client import multiprocess

from keras_bridgetower.apps.serve.errors import Refused
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.pictures import PictureFetcher
from keras_bridgetower.apps.serve.pictures import PictureReader
from keras_bridgetower.apps.serve.plan import Limits
from keras_bridgetower.apps.serve.plan import served_name
from keras_bridgetower.apps.serve.starting import COUNTS

# Bounds of the histogram, in seconds.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
# Heads required by the verbs with routes of their own.
_NEEDS = {
    "embed": "a contrastive head",
    "score": "a matching head",
    "answer": "a question answering head",
    "fill": "a masked language head",
}


class PresetClient:
    """One preset of a server, called through its engine.

    Args:
        name: str, its name for clients.
        facts: dict, from `ServedPreset.facts`.
        ask: coroutine function that takes a verb and a list of inputs, and
            returns a list of results, some of which may be `Refused`.
        count: callable that takes a verb and a number, for metrics.
    """

    def __init__(self, name, facts, ask, count):
        self.name = name
        self.verbs = facts["verbs"]
        self.kinds = facts["kinds"]
        self.width = facts["width"]
        # Required and optional inputs of the verbs of /v1/predict.
        self.inputs = facts["inputs"]
        self._ask = ask
        self._count = count

    async def ask(self, verb, inputs, params):
        """Run a verb.

        Args:
            verb: str.
            inputs: list of inputs.
            params: list of dict, one for each input, from `Refused.about` to
                the field of the request to blame.

        Returns:
            list of results.

        Raises:
            RequestError: the verb rejects an input.
        """
        found = await self._ask(verb, inputs)
        for result, fields in zip(found, params, strict=True):
            if isinstance(result, Refused):
                param = fields[result.about]
                raise RequestError(
                    400, f"{param}: {result.message}", param, result.code
                )
        self._count(verb, len(inputs))
        return found

    def check_kind(self, kind, param):
        """Reject a kind of input that the contrastive head cannot embed."""
        if kind not in self.kinds:
            raise RequestError(
                400,
                f"{param}: the preset {self.name} embeds texts and pictures, "
                "but not pairs: its contrastive head is two-way. Send "
                "`text` or `image`.",
                param,
            )


class Presets:
    """All presets of a server.

    Args:
        presets: list of `PresetClient`. Requests without a model name go to
            the first that supports them.
    """

    def __init__(self, presets):
        self._presets = {_same(preset.name): preset for preset in presets}

    def __iter__(self):
        return iter(self._presets.values())

    def find(self, name, verb):
        """Return the preset for a request.

        Args:
            name: str, the model of the request, or None. Hyphens match
                underscores; a prefix such as `user/` is ignored.
            verb: str, which the preset must support.

        Raises:
            RequestError: no such preset, or one without the verb.
        """
        if name is None:
            return self._first(verb)
        preset = self._presets.get(_same(name))
        if preset is None:
            raise RequestError(
                404,
                f"There is no model {name[:100]!r} here. Available models: "
                f"{', '.join(p.name for p in self)}.",
                "model",
                "model_not_found",
            )
        if verb not in preset.verbs:
            raise RequestError(
                400,
                f"The model {preset.name} lacks {_needs(verb)}, which this "
                "route needs.",
                "model",
            )
        return preset

    def _first(self, verb):
        for preset in self:
            if verb in preset.verbs:
                return preset
        raise RequestError(
            404, f"No model here has {_needs(verb)}, which this route needs."
        )


def _needs(verb):
    return _NEEDS.get(verb, f"a head for the task {verb[:100]!r}")


def _same(name):
    return served_name(name).replace("-", "_").lower()


class Metrics:
    """Prometheus metrics of this process, or of all workers."""

    def __init__(self):
        registry = prometheus_client.CollectorRegistry()
        self._shown = registry
        if COUNTS in os.environ:
            self._shown = prometheus_client.CollectorRegistry()
            multiprocess.MultiProcessCollector(self._shown)
        self.requests = prometheus_client.Counter(
            "bridgetower_requests",
            "Answered requests, by route and status.",
            ("route", "status"),
            registry=registry,
        )
        self.seconds = prometheus_client.Histogram(
            "bridgetower_request_seconds",
            "Time to answer a request, in seconds.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.inputs = prometheus_client.Counter(
            "bridgetower_inputs",
            "Inputs processed by models, by preset and verb.",
            ("preset", "verb"),
            registry=registry,
        )
        self.present = prometheus_client.Gauge(
            "bridgetower_requests_present",
            "Requests in progress or waiting.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def page(self):
        """Return the text of the page, as bytes, and its content type."""
        text = prometheus_client.generate_latest(self._shown)
        return text, prometheus_client.CONTENT_TYPE_LATEST


@dataclasses.dataclass
class Service:
    """The objects that the routes use.

    Args:
        presets: `Presets`.
        limits: `Limits`.
        pictures: `PictureReader`.
        metrics: `Metrics`.
        missing: coroutine function without arguments that returns the names
            of presets that cannot answer now.
        find: coroutine function that takes an `inputs.ToFind` and returns a
            list of hits as dicts, or `Refused`; None without an index.
        waiting: callable without arguments that returns the number of
            requests present.
    """

    presets: Presets
    limits: Limits
    pictures: PictureReader
    metrics: Metrics
    missing: Callable
    find: Callable | None = None
    waiting: Callable = int


def build_service(plan, facts, ask, missing, find=None):
    """Build the service of a plan.

    Args:
        plan: `Plan`.
        facts: list of dict, `ServedPreset.facts` of each preset.
        ask: coroutine function of the engine that takes the name of a preset,
            a verb and a list of inputs, and returns a list of results.
        missing, find: as in `Service`.
    """
    metrics = Metrics()

    def preset_client(name, known):
        def count(verb, number):
            metrics.inputs.labels(name, verb).inc(number)

        return PresetClient(name, known, functools.partial(ask, name), count)

    fetcher = PictureFetcher(plan.limits) if plan.limits.picture_hosts else None
    return Service(
        Presets(list(map(preset_client, plan.names(), facts))),
        plan.limits,
        PictureReader(fetcher),
        metrics,
        missing,
        find,
    )


def check_count(limits, values, param):
    """Reject more inputs than a request may have."""
    if len(values) > limits.inputs:
        raise RequestError(
            400,
            f"{param}: a request may have at most {limits.inputs}. Split it. "
            f"Received: {len(values)}",
            param,
            "too_many_inputs",
        )


async def read_inputs(service, preset, values, param):
    """Read the texts and pictures of inputs.

    Args:
        service: `Service`.
        preset: `PresetClient`.
        values: list of `bodies.Input`.
        param: str, the field that contains them.

    Returns:
        Pair of lists: `(text, image)` of each, either of which may be None,
        with images as bytes; and the fields of each, for `PresetClient.ask`.
    """
    names = [f"{param}.{index}" for index in range(len(values))]
    read = []
    for value, name in zip(values, names, strict=True):
        if value.text is not None and value.image is not None:
            preset.check_kind("fused", name)
        image = value.image
        if image is not None:
            image = await service.pictures.read(image, f"{name}.image")
        read.append((value.text, image))
    return read, [dict.fromkeys(("text", "image"), name) for name in names]
