"""Counts of requests, for Prometheus."""

import prometheus_client

# Seconds of a request that the histogram divides.
_SECONDS = (0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30)


class Metrics:
    """What `/metrics` shows of one process that answers requests."""

    def __init__(self):
        self._registry = prometheus_client.CollectorRegistry()
        self.requests = prometheus_client.Counter(
            "bridgetower_requests",
            "Answered requests, by route and status.",
            ("route", "status"),
            registry=self._registry,
        )
        self.seconds = prometheus_client.Histogram(
            "bridgetower_request_seconds",
            "Time of a request from its arrival to its answer.",
            ("route",),
            buckets=_SECONDS,
            registry=self._registry,
        )
        self.inputs = prometheus_client.Counter(
            "bridgetower_inputs",
            "Inputs that models have answered, by preset and verb.",
            ("preset", "verb"),
            registry=self._registry,
        )
        self.present = prometheus_client.Gauge(
            "bridgetower_requests_present",
            "Requests that are worked on or wait.",
            registry=self._registry,
        )

    def page(self):
        """The text of the page, as bytes, and its content type."""
        text = prometheus_client.generate_latest(self._registry)
        return text, prometheus_client.CONTENT_TYPE_LATEST
