"""About 200 hostile requests and the allowed statuses of each."""

import base64
import dataclasses
import itertools
import json
import os
import struct
import zlib

import served

# Answers that a refused request may get.
REFUSED = (400,)


@dataclasses.dataclass(frozen=True)
class Hostile:
    """A request that must not be answered as if it were good."""

    name: str
    path: str
    body: bytes
    statuses: tuple = REFUSED
    headers: dict = dataclasses.field(default_factory=dict)
    method: str = "POST"


def chunk(kind, data):
    crc = struct.pack(">I", zlib.crc32(kind + data))
    return struct.pack(">I", len(data)) + kind + data + crc


def png_of(width, height):
    """A small PNG file that says it has so many pixels."""
    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = ((b"IHDR", head), (b"IDAT", zlib.compress(b"\0" * 1000)))
    chunks = (chunk(*part) for part in (*parts, (b"IEND", b"")))
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def in_base64(data):
    return base64.b64encode(data).decode()


def with_picture(image):
    """A good body for each route that takes a picture, but for the picture."""
    return {
        "/v1/embeddings": {"input": [{"image": image}]},
        "/embeddings": {"image": {"base64_image": image}},
        "/v1/encode": {"text": "a", "img_b64_str": image},
        "/v1/rerank": {"query": "a", "documents": [{"image": image}]},
        "/v1/score": {"pairs": [{"image": image, "text": "a"}]},
        "/v1/answer": {"image": image, "question": "what?"},
        "/v1/fill": {"image": image, "text": "a <mask>"},
        "/v1/search": {"image": image},
    }


def bad_pictures():
    """Pictures that are none, by name."""
    good = served.picture()[0]
    return {
        "base64 of nothing": "=",
        "base64 of text": in_base64(b"no picture at all"),
        "no base64": "!!! not base64 ???",
        "a path": "/etc/passwd",
        "a path of this folder": "pyproject.toml",
        "a data URL without base64": "data:image/png,%89PNG",
        "a bomb of 2^30 pixels": in_base64(png_of(32768, 32768)),
        "a bomb below Pillow's limit": in_base64(png_of(9000, 9000)),
        "a picture without pixels": in_base64(png_of(0, 10)),
        "half a picture": in_base64(good[: len(good) // 2]),
        "its signature alone": in_base64(good[:8]),
        "PostScript": in_base64(b"%!PS-Adobe-3.0 EPSF-3.0\n"),
        "SVG": in_base64(b"<svg xmlns='http://www.w3.org/2000/svg'/>"),
    }


URLS = (
    "http://127.0.0.1:{port}/private",
    "http://localhost:{port}/private",
    "http://[::1]:{port}/private",
    "http://169.254.169.254/latest/meta-data",
    "https://user:word@localhost/private",
    "file:///etc/passwd",
    "ftp://localhost/picture.png",
    "gopher://localhost:{port}/",
)
BODIES = {
    "nothing": b"",
    "no JSON": b"{'text': 'a'}",
    "half of JSON": b'{"text": "a"',
    "a list": b"[]",
    "a string": b'"a"',
    "null": b"null",
    "a number": b"1",
    "an empty object": b"{}",
    "not UTF-8": b'{"text": "\xff\xfe"}',
    "deep lists": b"[" * 100_000 + b"]" * 100_000,
    "deep objects": b'{"text":' * 50_000 + b"1" + b"}" * 50_000,
    "a long number": b'{"text": ' + b"9" * 10_000 + b"}",
}


def wrong_values():
    """Bodies with a value of a wrong type or an unknown field, by route."""
    image = in_base64(served.picture()[0])
    good = with_picture(image)
    for path, body in good.items():
        yield f"an unknown field, {path}", path, {**body, "colour": "red"}
        yield f"an unknown model, {path}", path, {**body, "model": "none"}
        yield f"a model of no text, {path}", path, {**body, "model": 7}
        for name in body:
            for wrong in (None, 7, [], {}, [[]], True):
                what = f"{name}={wrong!r}, {path}"
                yield what, path, {**body, name: wrong}
    for wrong in ("1", 0, -1, 1.5, 10**30, None):
        body = {**good["/v1/answer"], "top_k": wrong}
        yield f"top_k={wrong!r}", "/v1/answer", body
    for name, wrong in {
        "truncate": "yes",
        "truncation_direction": "Up",
        "encoding_format": "hex",
        "dimensions": 3,
    }.items():
        body = {"input": "a", name: wrong}
        yield f"{name}={wrong!r}", "/v1/embeddings", body


def texts():
    """Texts that are too long, too many, empty, or strange."""
    path = "/v1/embeddings"
    yield "10 MB of text", path, {"input": "a" * 10_000_000}
    yield "10,000 texts", path, {"input": ["a"] * 10_000}
    yield "no text", path, {"input": []}
    yield "an empty text", path, {"input": ""}
    yield "an empty text among others", path, {"input": ["a", "", "b"]}
    yield "half a character", path, {"input": "\ud800"}
    yield "a NUL", path, {"input": "a\0b"}
    yield "a text of tokens", path, {"input": [[1, 2, 3]]}
    yield "no mask", "/v1/fill", {**with_picture("")["/v1/fill"], "text": "a"}
    pairs = [{"image": "a", "text": "a"}] * 10_000
    yield "10,000 pairs", "/v1/score", {"pairs": pairs}
    documents = ["a"] * 10_000
    body = {"query": "a", "documents": documents}
    yield "10,000 documents", "/v1/rerank", body
    mixed = ["a", {"image": in_base64(served.picture()[0])}]
    body = {"query": "a", "documents": mixed}
    yield "texts and pictures", "/v1/rerank", body


def requests(port=9):
    """All hostile requests; nothing may be fetched from a port of here."""
    found = [
        Hostile(f"{name}, {path}", path, body)
        for path, (name, body) in itertools.product(
            with_picture(""), BODIES.items()
        )
    ]
    for name, image in bad_pictures().items():
        for path, body in with_picture(image).items():
            found.append(in_json(f"{name}, {path}", path, body))
    for url in URLS:
        for path, body in with_picture(url.format(port=port)).items():
            found.append(in_json(f"{url}, {path}", path, body))
        url_body = {"image": {"url": url.format(port=port)}}
        found.append(in_json(f"image.url {url}", "/v1/embeddings", url_body))
    for name, path, body in (*wrong_values(), *texts()):
        # A field that may be left out may be null.
        optional = any(body.get(n, 0) is None for n in ("img_b64_str", "image"))
        statuses = (200, 400) if optional else (400, 404)
        found.append(in_json(name, path, body, statuses))
    found += of_http()
    return found


def of_http():
    """Requests that are wrong as HTTP: size, method, path."""
    path = "/v1/embeddings"
    good = json.dumps({"input": "a"}).encode()
    yield Hostile("30 MB", path, b"x" * 30_000_000, (413,))
    for method in ("GET", "PUT", "DELETE", "PATCH"):
        yield Hostile(f"{method}", path, good, (405,), {}, method)
    for other in (
        *("/v1/none", "/../../etc/passwd", "/%2e%2e/%2e%2e/etc/passwd"),
        *("/v1/embeddings/../../..", "/docs/../../etc/passwd", "//etc/passwd"),
    ):
        yield Hostile(f"the path {other}", other, good, (404,), {}, "GET")
    for key in ("", "Bearer", "Bearer wrong", "Basic a2V5"):
        headers = {"Authorization": key}
        yield Hostile(f"the key {key!r}", path, good, (401,), headers)
    form = {"Content-Type": "text/plain"}
    yield Hostile("no JSON type", path, b"input=a", (415,), form)


def in_json(name, path, body, statuses=REFUSED):
    return Hostile(name, path, json.dumps(body).encode(), statuses)


def problem(hostile, answer):
    """Return the problem of an httpx response, or None."""
    text = answer.text
    if answer.status_code not in hostile.statuses:
        return f"status {answer.status_code}: {text[:300]}"
    if "Traceback" in text or 'File "' in text or os.getcwd() in text:
        return f"tells of the server: {text[:300]}"
    if answer.status_code == 200:
        return None
    if set(answer.json()["error"]) != {"message", "type", "param", "code"}:
        return f"another shape: {text[:300]}"
    return f"{len(text)} characters" if len(text) > 3000 else None


def send(client, hostile):
    """The answer of a server, by a client of httpx."""
    headers = {"Content-Type": "application/json", **hostile.headers}
    request = client.build_request(
        hostile.method, "/", content=hostile.body, headers=headers
    )
    # As it is written, with its dots.
    request.url = request.url.copy_with(raw_path=hostile.path.encode())
    return client.send(request)
