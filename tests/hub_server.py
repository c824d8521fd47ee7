"""A hub on this machine, and its library's cache."""

import contextlib
import hashlib
import json
import urllib.parse

import http_servers
import huggingface_hub
from huggingface_hub import constants

COMMIT = "0123456789abcdef0123456789abcdef01234567"
OTHER = "fedcba9876543210fedcba9876543210fedcba98"


# From this size on a file has a SHA-256, as on the hub.
LARGE = 1000


class Hub:
    """Answers for repositories, counts, and can misbehave.

    Args:
        revisions: dict from a revision to its commit.
        commits: dict from a commit to its files, a dict from name to bytes.

    `requests` lists the paths that were asked for. `stops_at` breaks the
    connection after so many bytes of a large file.
    """

    def __init__(self, revisions, commits):
        self.revisions, self.commits = revisions, commits
        self.requests = []
        self.stops_at = None

    def __call__(self, request):
        path = urllib.parse.urlsplit(request.path).path
        self.requests.append(path)
        parts = [urllib.parse.unquote(part) for part in path.split("/")]
        try:
            if parts[1] == "api":
                http_servers.send(request, 200, self._info(parts[6]))
            else:
                self._send_file(request, parts[4], "/".join(parts[5:]))
        except (KeyError, IndexError):
            error = "RevisionNotFound"
            http_servers.send(request, 404, X_Error_Code=error)

    def _files(self, revision):
        commit = self.revisions.get(revision, revision)
        return commit, self.commits[commit]

    def _info(self, revision):
        commit, files = self._files(revision)
        siblings = []
        for name, data in files.items():
            entry = {"rfilename": name, "size": len(data), "blobId": "a"}
            if len(data) >= LARGE:
                entry["lfs"] = {
                    "sha256": hashlib.sha256(data).hexdigest(),
                    "size": len(data),
                    "pointerSize": 134,
                }
            siblings.append(entry)
        info = {"id": "a/b", "sha": commit, "siblings": siblings}
        return json.dumps(info).encode()

    def _send_file(self, request, revision, name):
        commit, files = self._files(revision)
        data, status, start = files[name], 200, 0
        headers = {"ETag": f'"{digest(data)}"', "X_Repo_Commit": commit}
        asked = request.headers.get("Range")
        if asked:
            start = int(asked.removeprefix("bytes=").removesuffix("-"))
            status, last = 206, len(data) - 1
            headers["Content_Range"] = f"bytes {start}-{last}/{len(data)}"
        headers["Content_Length"] = str(len(data) - start)
        end = self.stops_at if len(data) >= LARGE else None
        http_servers.send(request, status, data[start:end], **headers)


def digest(data):
    kind = "sha256" if len(data) >= LARGE else "sha1"
    return hashlib.new(kind, data).hexdigest()


@contextlib.contextmanager
def serving(hub, monkeypatch, cache):
    """Let a hub answer, and the hub's library ask it, with an own cache."""
    with http_servers.served(hub) as address:
        use(monkeypatch, cache, f"http://{address}")
        try:
            yield hub
        finally:
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
        blob = top / "blobs" / digest(data)
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
