"""Presets, pictures and metrics of a server, for its routes."""

import asyncio
import os

import fastapi
import prometheus_client
from prometheus_client import multiprocess

from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.inputs import Asked
from keras_bridgetower.apps.serve.plan import served_name
from keras_bridgetower.preprocessing.images import decode_base64

# Environment variable of the folder in which processes share metrics, which
# `prometheus_client` reads when it is imported.
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


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
        text = prometheus_client.generate_latest(self._shown)
        return fastapi.Response(
            text, media_type=prometheus_client.CONTENT_TYPE_LATEST
        )


class PresetClient:
    """One preset of a server, called through its engine.

    Args:
        name: str, its name for clients.
        facts: dict, from `ServedPreset.facts`.
        ask: as in `Service`.
        counter: Prometheus counter of inputs.
    """

    def __init__(self, name, facts, ask, counter):
        self.name = name
        self.verbs, self.inputs = facts["verbs"], facts["inputs"]
        self.width = facts["width"]
        self._ask = ask
        self._counter = counter

    async def ask(self, verb, inputs):
        """Run a verb, and return a list of results.

        Args:
            verb: str.
            inputs: list of `(asked, fields)`: an `Asked`, and a dict from
                `Refused.about` to the field of the request to blame.

        Raises:
            FieldError: the verb rejects an input.
        """
        found = await self._ask(self.name, verb, [one for one, _ in inputs])
        for result, (_, fields) in zip(found, inputs, strict=True):
            if isinstance(result, errors.Refused):
                param = fields[result.about]
                raise errors.FieldError(param, result.message, result.code)
        self._counter.labels(self.name, verb).inc(len(inputs))
        return found


class Service:
    """Presets, pictures and metrics of one server.

    Args:
        plan: `Plan`.
        facts: list of dict, `ServedPreset.facts` of each preset.
        ask: coroutine function of the name of a preset, a verb and a list of
            inputs. Returns a list of results, some of which may be `Refused`.
        missing: coroutine function that returns the names of presets that
            cannot answer now.
        find: coroutine function of an `inputs.Asked`. Returns a list of hits
            as dicts, or `Refused`. None without an index.

    Attributes:
        admission: the `Admission` of the application.
    """

    def __init__(self, plan, facts, ask, missing, find=None):
        self.plan, self.limits = plan, plan.limits
        self.missing, self.find = missing, find
        self.metrics = Metrics()
        self.presets = {
            _same(name): PresetClient(name, known, ask, self.metrics.inputs)
            for name, known in zip(plan.names(), facts, strict=True)
        }
        self.admission = None

    def preset(self, name, verb):
        """Return the preset for a request.

        Args:
            name: str, the model of the request; None for the first preset
                that supports the verb. Hyphens match underscores; a prefix
                such as `user/` is ignored.
            verb: str.

        Raises:
            errors.RequestError: no such preset, or one without the verb.
        """
        needs = f"a head for the task {verb[:100]!r}, which this route needs"
        if name is None:
            able = [x for x in self.presets.values() if verb in x.verbs]
            if able:
                return able[0]
            raise errors.RequestError(404, f"No model here has {needs}.")
        preset = self.presets.get(_same(name))
        if preset is None:
            known = ", ".join(self.plan.names())
            message = f"No model {name[:100]!r}. Available models: {known}."
            raise errors.RequestError(404, message, "model", "model_not_found")
        if verb not in preset.verbs:
            raise errors.FieldError("model", f"{preset.name} lacks {needs}.")
        return preset

    def check_count(self, values, param):
        """Reject more inputs than a request may have."""
        most = self.limits.inputs
        if len(values) > most:
            message = f"a request may have at most {most}. Split it."
            raise errors.FieldError(param, message, "too_many_inputs")

    async def read_inputs(self, field, values, long_texts, most=0):
        """Read texts and pictures.

        Args:
            field: str, the field of the request that contains them.
            values: list of `bodies.Input`.
            long_texts, most: as in `Asked`.

        Returns:
            list for `PresetClient.ask`.
        """
        self.check_count(values, field)
        read = []
        for index, value in enumerate(values):
            name = f"{field}.{index}"
            image = await read_picture(value.image, name)
            asked = Asked(value.text, image, long_texts=long_texts, most=most)
            read.append((asked, dict.fromkeys(("text", "image"), name)))
        return read


def _same(name):
    return served_name(name).replace("-", "_").lower()


async def read_picture(text, param):
    """Return the bytes of a picture, or None for None.

    Args:
        text: str, base64 or a `data:` URL; or None.
        param: str, the field that contains it.

    Raises:
        FieldError: another URL, or damaged base64.
    """
    if text is None:
        return None
    # Base64 has no colon.
    if "://" in text[:64]:
        message = "this server does not fetch URLs. Send base64."
        raise errors.FieldError(param, message)
    try:
        return await asyncio.to_thread(decode_base64, text, "image")
    except ValueError as error:
        raise errors.FieldError(param, "must be base64 data.") from error
