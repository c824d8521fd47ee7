"""A hub on this machine, and its library's cache."""

import contextlib
import hashlib
import http.server
import json
import threading
import urllib.parse

import huggingface_hub
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


class Hub:
    """A server of repositories, which counts and can misbehave.

    Args:
        revisions: dict from a revision to its commit.
        commits: dict from a commit to its files, a dict from name to bytes.
        large: int, size from which a file has a SHA-256 as on the hub.

    `requests` lists what was asked, as (method, path, range). `stops_at`
    breaks the connection after so many bytes of a large file; `parts=False`
    gives whole files only.
    """

    def __init__(self, revisions, commits, large=1000):
        self.revisions, self.commits, self.large = revisions, commits, large
        self.requests = []
        self.stops_at = None
        self.parts = True

    def files(self, revision):
        return self.commits[self.revisions.get(revision, revision)]


def _handler(hub):
    class Handler(http.server.BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def log_message(self, *arguments):
            pass

        def do_HEAD(self):
            self._answer(False)

        def do_GET(self):
            self._answer(True)

        def _answer(self, body):
            path = urllib.parse.urlsplit(self.path).path
            asked = self.headers.get("Range")
            hub.requests.append((self.command, path, asked))
            parts = [urllib.parse.unquote(part) for part in path.split("/")]
            try:
                if parts[1] == "api":
                    self._info(parts[6])
                else:
                    self._file(parts[4], "/".join(parts[5:]), asked, body)
            except (KeyError, IndexError):
                self._send(404, b"", {"X-Error-Code": "RevisionNotFound"})

        def _send(self, status, data, headers, body=True, end=None):
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            if body:
                self.wfile.write(data[:end])
                self.wfile.flush()

        def _info(self, revision):
            siblings = []
            for name, data in hub.files(revision).items():
                entry = {"rfilename": name, "size": len(data), "blobId": "a"}
                if len(data) >= hub.large:
                    entry["lfs"] = {
                        "sha256": hashlib.sha256(data).hexdigest(),
                        "size": len(data),
                        "pointerSize": 134,
                    }
                siblings.append(entry)
            commit = hub.revisions.get(revision, revision)
            info = {"id": "a/b", "sha": commit, "siblings": siblings}
            self._send(200, json.dumps(info).encode(), {})

        def _file(self, revision, name, asked, body):
            whole = data = hub.files(revision)[name]
            kind = "sha256" if len(data) >= hub.large else "sha1"
            status = 200
            headers = {
                "ETag": f'"{hashlib.new(kind, data).hexdigest()}"',
                "X-Repo-Commit": hub.revisions.get(revision, revision),
            }
            if asked and hub.parts:
                start = int(asked.removeprefix("bytes=").removesuffix("-"))
                status, data = 206, whole[start:]
                headers["Content-Range"] = (
                    f"bytes {start}-{len(whole) - 1}/{len(whole)}"
                )
            if hub.stops_at is None or len(whole) < hub.large or not body:
                return self._send(status, data, headers, body)
            end = max(hub.stops_at - (len(whole) - len(data)), 0)
            self._send(status, data, headers, end=end)
            self.close_connection = True

    return Handler


@contextlib.contextmanager
def serving(hub, monkeypatch, cache):
    """Let a hub answer, and the hub's library ask it, with an own cache."""
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), _handler(hub))
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    use(monkeypatch, cache, f"http://127.0.0.1:{server.server_port}")
    try:
        yield hub
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
        huggingface_hub.close_session()


def use(monkeypatch, cache, endpoint):
    """Let the hub's library ask an address, with an own cache."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_IMPLICIT_TOKEN", True)


def fill(cache, repository, commit, files, revisions=()):
    """Lay files into a cache as the hub's library does; the folder."""
    top = cache / f"models--{repository.replace('/', '--')}"
    folder = top / "snapshots" / commit
    for name, data in files.items():
        kind = "sha256" if len(data) >= 1000 else "sha1"
        blob = top / "blobs" / hashlib.new(kind, data).hexdigest()
        blob.parent.mkdir(parents=True, exist_ok=True)
        blob.write_bytes(data)
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(blob)
    for revision in revisions:
        path = top / "refs" / revision
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(commit)
    return folder
