"""Serves a folder over HTTP with faults: python faulty_server.py FOLDER.

It prints its port. `/faults` returns how many faults there were, `/stall` makes
all further requests wait forever.
"""

import contextlib
import functools
import http.server
import itertools
import pathlib
import random
import sys
import threading
import time

FAULTS = ("slow", "error", "cut")
# Share of the requests that are answered as they should.
WHOLE = 0.4


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers by a file, or by a fault that the number of a request draws."""

    protocol_version = "HTTP/1.1"
    counter, lock = itertools.count(), threading.Lock()
    faults, stalled = 0, threading.Event()

    def __init__(self, folder, *given):
        self.folder = folder
        super().__init__(*given)

    def do_HEAD(self):
        self._answer()

    def do_GET(self):
        self._answer()

    def _answer(self):
        kind = type(self)
        if self.path == "/stall":
            kind.stalled.set()
        if self.path in ("/stall", "/faults"):
            return self._send(200, str(kind.faults).encode())
        if kind.stalled.is_set():
            time.sleep(3600)
        with kind.lock:
            drawn = random.Random(next(kind.counter))
            whole = drawn.random() < WHOLE
            fault = "" if whole else drawn.choice(FAULTS)
            kind.faults += not whole
        path = self.folder / self.path.strip("/")
        if fault == "error":
            return self._send(503, b"busy")
        if not path.is_file():
            return self._send(404, b"no such file")
        if fault == "slow":
            time.sleep(0.05)
        self._send(200, path.read_bytes(), cut=fault == "cut")

    def _send(self, code, body, cut=False):
        self.send_response(code)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(body[: len(body) // 2] if cut else body)
        if cut:
            self.close_connection = True

    def log_message(self, *given):
        """Log nothing."""


@contextlib.contextmanager
def served(answer):
    """Yield the address of a server whose GET requests a function answers."""

    class Own(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            # Clients may leave at any time.
            with contextlib.suppress(OSError):
                answer(self)

        def log_message(self, *given):
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(handler, code, body=b"", **headers):
    """Answer a request at once."""
    handler.send_response(code)
    for name, value in headers.items():
        handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


if __name__ == "__main__":
    made = functools.partial(Handler, pathlib.Path(sys.argv[1]))
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), made)
    print(server.server_port, flush=True)
    server.serve_forever()
