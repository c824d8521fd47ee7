"""Test pictures by URL: hosts, addresses, size, time, redirects."""

import asyncio
import contextlib
import http.server
import threading
import time

import pytest
from builders import FASTEST

pytest.importorskip("aiohttp", reason="the extra `serve`")

from keras_bridgetower.apps.serve import service
from keras_bridgetower.apps.serve.errors import RequestError
from keras_bridgetower.apps.serve.plan import Limits

pytestmark = FASTEST
HOSTS = ("localhost", "127.0.0.1", "2130706433")


class Host(http.server.BaseHTTPRequestHandler):
    """Sends 100 bytes, or misbehaves as its path says."""

    asked = []

    def do_GET(self):
        self.asked.append(self.path)
        self.send_response(302 if self.path == "/moved" else 200)
        self.send_header("Location", "/good")
        self.end_headers()
        with contextlib.suppress(OSError):
            if self.path == "/slow":
                time.sleep(1)
            self.wfile.write(b"x" * (10_000 if self.path == "/large" else 100))

    def log_message(self, *args):
        """Say nothing."""


@pytest.fixture(scope="module")
def server_port():
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever).start()
        yield server.server_port
        server.shutdown()


@pytest.fixture
def port(server_port, monkeypatch):
    """The port of a host that may be asked, but not at its private address."""
    ports = {"http": server_port, "https": 443}
    monkeypatch.setattr(service, "_PORTS", ports)
    Host.asked.clear()
    return server_port


@pytest.fixture
def anywhere(monkeypatch):
    monkeypatch.setattr(service, "is_public", lambda address: True)


def fetch(url, hosts=HOSTS):
    limits = Limits(
        picture_hosts=hosts, picture_bytes=1000, picture_seconds=0.3
    )
    reader = service.PictureReader(limits)
    return asyncio.run(reader.read(url, "image"))


def test_fetching_is_limited(port, anywhere):
    url = f"http://localhost:{port}"
    assert fetch(f"{url}/good") == b"x" * 100
    with pytest.raises(RequestError, match="does not fetch URLs"):
        fetch(f"{url}/good", hosts=())
    for path, words in (
        ("/moved", "status is 302"),
        ("/large", "at most 1000 bytes"),
        ("/slow", "within 0.3 seconds"),
    ):
        with pytest.raises(RequestError, match=words) as caught:
            fetch(url + path)
        assert caught.value.status == 400
        # It follows no redirection.
        assert Host.asked[-1] == path


@pytest.mark.parametrize(
    "url",
    [
        "http://localhost:{}/good",
        "http://127.0.0.1:{}/good",
        "http://other.example:{}/good",
        "http://user:word@localhost:{}/good",
        "http://localhost:1/good",
        "ftp://localhost/good",
        "http://[::/good",
        "http://2130706433:{}/good",
    ],
)
def test_private_hosts_are_not_contacted(port, url):
    """Also where the hosts of private addresses are in the list."""
    with pytest.raises(RequestError) as caught:
        fetch(url.format(port))
    assert caught.value.status == 400
    assert "127.0.0.1" not in str(caught.value).partition("from")[0]
    assert Host.asked == []


PRIVATE = (
    *("127.0.0.1", "10.1.2.3", "192.168.0.1", "169.254.169.254"),
    *("0.0.0.0", "::1", "fe80::1", "fc00::1", "::ffff:127.0.0.1"),
    *("100.64.0.1", "224.0.0.1", "ff02::1", "64:ff9b::7f00:1"),
    *("2002:7f00:1::", "2001:0:7f00:1::"),
)
PUBLIC = ("93.184.216.34", "2606:2800:220:1::1")


@pytest.mark.parametrize("address", [*PRIVATE, *PUBLIC])
def test_public_addresses(address):
    assert service.is_public(address) == (address in PUBLIC)
