"""`Service`: presets, pictures and metrics, as the routes use them."""

import asyncio
import ipaddress
import os
import socket
import urllib.parse

import fastapi
import prometheus_client
from prometheus_client import multiprocess

from keras_bridgetower.apps.serve import errors
from keras_bridgetower.apps.serve.plan import served_name
from keras_bridgetower.preprocessing.images import decode_base64

# Folder in which processes share metrics. `prometheus_client` reads the
# variable when it is imported.
COUNTS = "PROMETHEUS_MULTIPROC_DIR"
# Bounds of the histogram, in seconds.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)
# IPv6 networks whose addresses lead to addresses of IPv4: NAT64 and 6to4.
_EMBEDDING = tuple(map(ipaddress.ip_network, ("64:ff9b::/96", "2002::/16")))
_PORTS = {"http": 80, "https": 443}


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
        """Return the response with all metrics."""
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
        self.verbs = facts["verbs"]
        self.kinds = facts["kinds"]
        self.width = facts["width"]
        # Required and optional inputs of the verbs of /v1/predict.
        self.inputs = facts["inputs"]
        self._ask = ask
        self._counter = counter

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
            FieldError: the verb rejects an input.
        """
        found = await self._ask(self.name, verb, inputs)
        for result, fields in zip(found, params, strict=True):
            if isinstance(result, errors.Refused):
                param = fields[result.about]
                raise errors.FieldError(param, result.message, result.code)
        self._counter.labels(self.name, verb).inc(len(inputs))
        return found

    def check_pair(self, param):
        """Reject a pair that the contrastive head cannot embed."""
        if "fused" not in self.kinds:
            message = f"{self.name} embeds no pairs: its head is two-way."
            raise errors.FieldError(param, message)


class Service:
    """The objects that the routes use.

    Args:
        plan: `Plan`.
        facts: list of dict, `ServedPreset.facts` of each preset.
        ask: coroutine function of the engine that takes the name of a preset,
            a verb and a list of inputs, and returns a list of results, some
            of which may be `Refused`.
        missing: coroutine function without arguments that returns the names
            of presets that cannot answer now.
        find: coroutine function that takes an `inputs.Asked` and returns a
            list of hits as dicts, or `Refused`; None without an index.

    Attributes:
        admission: the `Admission` of the application.
    """

    def __init__(self, plan, facts, ask, missing, find=None):
        self.plan, self.limits = plan, plan.limits
        self.missing, self.find = missing, find
        self.metrics = Metrics()
        self.pictures = PictureReader(plan.limits)
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
            verb: str, which the preset must support.

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

    async def read_inputs(self, preset, values, param):
        """Read the texts and pictures of inputs.

        Args:
            preset: `PresetClient`.
            values: list of `bodies.Input`.
            param: str, the field that contains them.

        Returns:
            Pair of lists: `(text, image)` of each, either of which may be
            None, with images as bytes; and the fields of each, for
            `PresetClient.ask`.
        """
        self.check_count(values, param)
        read, fields = [], []
        for index, value in enumerate(values):
            name, image = f"{param}.{index}", value.image
            if image is not None:
                if value.text is not None:
                    preset.check_pair(name)
                image = await self.pictures.read(image, f"{name}.image")
            read.append((value.text, image))
            fields.append(dict.fromkeys(("text", "image"), name))
        return read, fields


def _same(name):
    return served_name(name).replace("-", "_").lower()


def is_public(address):
    """Return True if an IP address, a str, is on the public network."""
    address = ipaddress.ip_address(address)
    address = getattr(address, "ipv4_mapped", None) or address
    if address.is_multicast or any(address in net for net in _EMBEDDING):
        return False
    return address.is_global


class PictureReader:
    """Read pictures as bytes of image files.

    `Decoders` check them, since even a header may take seconds. URLs are
    fetched with limits on hosts, addresses, size and time. Redirects are not
    followed. The address is checked when its socket is opened, so that a name
    cannot change its address in between.

    Args:
        limits: `Limits`. Without `picture_hosts`, URLs are rejected.
    """

    def __init__(self, limits):
        self._limits = limits

    async def read(self, text, param):
        """Return the bytes of a picture.

        Args:
            text: str, base64, a `data:` URL, or another URL; or None.
            param: str, the field that contains it.

        Returns:
            bytes, or None for None.

        Raises:
            FieldError: damaged base64, a URL that is not allowed, a private
                address, a redirect, too many bytes, or no answer in time.
        """
        if text is None:
            return None
        try:
            # Base64 has no colon.
            if "://" in text[:64]:
                return await self._fetched(text)
            return await asyncio.to_thread(decode_base64, text, "image")
        except _FetchError as error:
            raise errors.FieldError(param, str(error)) from error
        except ValueError as error:
            raise errors.FieldError(param, "must be base64 data.") from error

    async def _fetched(self, url):
        """Return the bytes at a URL."""
        self._check(url)
        seconds = self._limits.picture_seconds
        try:
            async with asyncio.timeout(seconds):
                return await self._answer(url)
        except _FetchError:
            raise
        except TimeoutError as error:
            message = f"the host did not send it within {seconds} seconds."
            raise _FetchError(message) from error
        # Clients raise many types, and messages may contain addresses.
        except Exception as error:
            errors.LOG.info("A picture could not be fetched", exc_info=error)
            raise _FetchError("the picture could not be fetched.") from error

    def _check(self, url):
        """Reject a URL by its scheme, host, port or user name."""
        hosts = self._limits.picture_hosts
        if not hosts:
            raise _FetchError("this server does not fetch URLs. Send base64.")
        try:
            parts = urllib.parse.urlsplit(url)
            usual = _PORTS.get(parts.scheme)
            # `hostname` is in lower case.
            allowed = (
                usual is not None
                and parts.port in (None, usual)
                and parts.username is None
                and parts.hostname in map(str.lower, hosts)
            )
        except ValueError:
            allowed = False
        if not allowed:
            hosts = ", ".join(hosts)
            raise _FetchError(f"only https:// and http:// from {hosts}.")

    async def _answer(self, url):
        import aiohttp

        def opened(found):
            family, kind, protocol, _, address = found
            if not is_public(address[0]):
                raise OSError("an address that is not public")
            return socket.socket(family, kind, protocol)

        async with (
            aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(socket_factory=opened)
            ) as session,
            session.get(url, allow_redirects=False) as answer,
        ):
            if answer.status != 200:
                raise _FetchError(f"the host's status is {answer.status}.")
            most, data = self._limits.picture_bytes, bytearray()
            async for part in answer.content.iter_chunked(65536):
                data += part
                if len(data) > most:
                    raise _FetchError(f"it must have at most {most} bytes.")
            return bytes(data)


class _FetchError(ValueError):
    """A picture that cannot be fetched, with a message for clients."""
