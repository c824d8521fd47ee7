"""Counts of requests, for Prometheus."""

import os

import prometheus_client
from prometheus_client import multiprocess

from keras_bridgetower.apps.serve.environment import COUNTS

# Seconds of a request that the histogram divides.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


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
