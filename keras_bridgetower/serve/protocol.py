"""HTTP/1.1 by uvicorn, with bounds for the head of a request.

Uvicorn itself reads a head without end, at any pace. Body and answer have the
bounds of `Limits`.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Seconds that a connection stays open between two requests: longer than
# usual proxies keep theirs, which would else meet a closed one.
_KEEP_ALIVE = 75


def http_settings(limits):
    """Arguments of `uvicorn.Config`, about connections.

    Args:
        limits: `Limits`.
    """
    return {
        "http": BoundedHead,
        "ws": "none",
        "lifespan": "off",
        # What fails is logged by the application.
        "log_config": None,
        "log_level": "critical",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _KEEP_ALIVE,
        "timeout_graceful_shutdown": limits.seconds,
    }


class BoundedHead(HttpToolsProtocol):
    """A connection that is closed where a head is too long or too slow.

    Attributes:
        head_bytes: int, bytes of a first line and headers.
        head_seconds: number, time from the connection, or from the first byte
            of a later request, to the end of the head.
    """

    head_bytes = 65_536
    head_seconds = 20
    _late = None

    def connection_made(self, transport):
        super().connection_made(transport)
        self._begin()

    def on_message_begin(self):
        super().on_message_begin()
        self._begin()

    def data_received(self, data):
        before = self._late
        super().data_received(data)
        # The same head as before, and still no end of it.
        if before is not None and self._late is before:
            self._read += len(data)
            if self._read > self.head_bytes:
                self._refuse()

    def on_headers_complete(self):
        self._end()
        super().on_headers_complete()

    def connection_lost(self, exc):
        self._end()
        super().connection_lost(exc)

    def _begin(self):
        self._end()
        self._read = 0
        self._late = self.loop.call_later(self.head_seconds, self._refuse)

    def _end(self):
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self):
        self._end()
        if not self.transport.is_closing():
            self.send_400_response(
                "The head of the request is too long or too slow."
            )
