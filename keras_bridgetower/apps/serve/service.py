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

# Seconds of a request that the histogram divides.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
# The head that each verb with a route of its own needs.
_NEEDS = {
    "embed": "a contrastive head",
    "score": "a matching head",
    "answer": "a question answering head",
    "fill": "a masked language head",
}


class AskedPreset:
    """One preset of a server, asked through its engine.

    Args:
        name: str, by which clients call it.
        facts: dict, what `ServedPreset.facts` returns.
        ask: coroutine function of a verb and a list of inputs that returns a
            list of results, of which some may be `Refused`.
        count: callable of a verb and a number, for metrics.
    """

    def __init__(self, name, facts, ask, count):
        self.name = name
        self.verbs = facts["verbs"]
        self.kinds = facts["kinds"]
        self.width = facts["width"]
        # Needed and optional inputs of the verbs of /v1/predict.
        self.inputs = facts["inputs"]
        self._ask = ask
        self._count = count

    async def ask(self, verb, asked, params):
        """The results of a verb.

        Args:
            verb: str.
            asked: list of inputs.
            params: list of dict, for each the fields of the body by what a
                `Refused` can be about.

        Raises:
            RequestError: an input that the verb refuses.
        """
        found = await self._ask(verb, asked)
        for result, fields in zip(found, params, strict=True):
            if isinstance(result, Refused):
                param = fields[result.about]
                raise RequestError(
                    400, f"{param}: {result.message}", param, result.code
                )
        self._count(verb, len(asked))
        return found

    def check_kind(self, kind, param):
        """Refuse to embed what the contrastive head has no part for."""
        if kind not in self.kinds:
            raise RequestError(
                400,
                f"{param}: the preset {self.name} embeds texts and pictures "
                "alone, and no pairs: its contrastive head is two-way. Send "
                "`text` or `image`.",
                param,
            )


class Presets:
    """All presets of a server.

    Args:
        presets: list of `AskedPreset`, of which the first that can do what is
            asked answers where a request names none.
    """

    def __init__(self, presets):
        self._presets = {_same(preset.name): preset for preset in presets}

    def __iter__(self):
        return iter(self._presets.values())

    def find(self, name, verb):
        """The preset that answers.

        Args:
            name: str, as the request says, or None. Hyphens and underscores
                are the same, and a handle's user may stand before it.
            verb: str, what it must be able to do.

        Raises:
            RequestError: no such preset, or one that cannot do it.
        """
        if name is None:
            return self._first(verb)
        preset = self._presets.get(_same(name))
        if preset is None:
            raise RequestError(
                404,
                f"There is no model {name[:100]!r} here. Served are: "
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
    """What `/metrics` shows: counts of this process, or of all workers."""

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
            "Time of a request from its arrival to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=registry,
        )
        self.inputs = prometheus_client.Counter(
            "bridgetower_inputs",
            "Inputs that models have answered, by preset and verb.",
            ("preset", "verb"),
            registry=registry,
        )
        self.present = prometheus_client.Gauge(
            "bridgetower_requests_present",
            "Requests that are worked on or wait.",
            multiprocess_mode="livesum",
            registry=registry,
        )

    def page(self):
        """The text of the page, as bytes, and its content type."""
        text = prometheus_client.generate_latest(self._shown)
        return text, prometheus_client.CONTENT_TYPE_LATEST


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


def check_count(limits, values, param):
    """Refuse more inputs than a request may hold."""
    if len(values) > limits.inputs:
        raise RequestError(
            400,
            f"{param}: a request may hold at most {limits.inputs}. Divide it. "
            f"Received: {len(values)}",
            param,
            "too_many_inputs",
        )


async def read_inputs(service, preset, values, param):
    """Inputs to embed, with their pictures as bytes.

    Args:
        service: `Service`.
        preset: `AskedPreset`.
        values: list of `bodies.Input`.
        param: str, the field that held them.

    Returns:
        Pair of lists: `(text, image)` of each, either may be None; and the
        fields of each, as `AskedPreset.ask` takes them.
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
