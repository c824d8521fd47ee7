"""HTTP/1.1 of uvicorn, with limits for the head and trailers of a request.

Uvicorn limits neither their size nor their time. `Limits` applies to the body
and the response.
"""

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Seconds that a connection stays open between two requests: longer than in
# usual proxies, which would otherwise use a closed connection.
_KEEP_ALIVE = 75


def http_settings(limits):
    """Return the arguments of `uvicorn.Config` about connections.

    Args:
        limits: `Limits`.
    """
    return {
        "http": BoundedHead,
        "ws": "none",
        "lifespan": "off",
        # The application logs its errors.
        "log_config": None,
        "log_level": "critical",
        "access_log": False,
        "server_header": False,
        "proxy_headers": False,
        "timeout_keep_alive": _KEEP_ALIVE,
        "timeout_graceful_shutdown": limits.seconds,
    }


class BoundedHead(HttpToolsProtocol):
    """Close connections with endless heads, trailers or late bodies.

    Trailers are read and dropped: uvicorn would add them to the headers after
    these were checked.

    Attributes:
        head_bytes: int, bytes of a first line and headers, of trailers, or of
            the extensions of a chunk.
        head_seconds: number, time from the connection, or from the first byte
            of a later request, to the end of the head; time for trailers; and
            time for the rest of a body after an early response.
    """

    head_bytes = 65_536
    head_seconds = 20
    _late = None
    _in_body = False
    # Bytes received since the last part of a body or end of a head.
    _unparsed = 0

    def connection_made(self, transport):
        super().connection_made(transport)
        self._begin(self._refuse)

    def on_message_begin(self):
        super().on_message_begin()
        self._in_body = False
        self._begin(self._refuse)

    def on_header(self, name, value):
        if not self._in_body:
            super().on_header(name, value)
        elif self._late is None:
            self._begin(self._refuse)

    def data_received(self, data):
        self._unparsed += len(data)
        super().data_received(data)
        if self._unparsed > self.head_bytes:
            self._refuse()

    def on_headers_complete(self):
        self._end()
        self._in_body = True
        super().on_headers_complete()

    def on_body(self, body):
        self._unparsed = 0
        super().on_body(body)

    def on_message_complete(self):
        self._end()
        super().on_message_complete()

    def on_response_complete(self):
        super().on_response_complete()
        if self.cycle.response_complete and self.cycle.more_body:
            self._begin(self.transport.abort)

    def connection_lost(self, exc):
        self._end()
        super().connection_lost(exc)

    def _begin(self, late):
        self._end()
        self._late = self.loop.call_later(self.head_seconds, late)

    def _end(self):
        self._unparsed = 0
        if self._late is not None:
            self._late.cancel()
            self._late = None

    def _refuse(self):
        self._end()
        if self.transport.is_closing():
            return
        if self._in_body and self.cycle.response_started:
            self.transport.abort()
            return
        self.send_400_response("The head is too long or too slow.")
