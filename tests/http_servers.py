"""HTTP servers of this process that answer as a test says, also with faults."""

import contextlib
import http.server
import itertools
import random
import threading
import time


@contextlib.contextmanager
def served(answer):
    """Yield the address of a server whose requests a function answers."""

    class Own(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            # Clients may leave at any time.
            with contextlib.suppress(OSError):
                answer(self)

        do_HEAD = do_GET

        def log_message(self, *given):
            """Log nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Own)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def send(request, code, body=b"", **headers):
    """Answer a request at once."""
    request.send_response(code)
    for name, value in headers.items():
        request.send_header(name.replace("_", "-"), value)
    request.end_headers()
    if request.command != "HEAD":
        request.wfile.write(body)


class Faults:
    """Answers by the files of a folder, or by a fault.

    The number of a request draws the fault. `count` is how many there were;
    after `stalled.set()` no request is answered.
    """

    def __init__(self, folder):
        self.folder, self.count = folder, 0
        self.stalled = threading.Event()
        self._numbers = itertools.count()

    def __call__(self, request):
        if self.stalled.is_set():
            time.sleep(5)
            return
        drawn = random.Random(next(self._numbers))
        fault = drawn.choice(("slow", "error", "cut", "", ""))
        self.count += bool(fault)
        if fault == "error":
            send(request, 503, b"busy")
            return
        if fault == "slow":
            time.sleep(0.05)
        body = (self.folder / request.path.strip("/")).read_bytes()
        sent = body[: len(body) // 2] if fault == "cut" else body
        send(request, 200, sent, Content_Length=str(len(body)))
