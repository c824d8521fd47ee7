"""Data sets in an object store: servers with faults, and a store in memory."""

import base64
import collections
import gzip
import os
import pathlib
import pickle
import re
import shutil
import threading
import time
import traceback
import types
from unittest import mock

import http_servers
import pytest
import s3_server
import streams
from builders import ONE_BACKEND

from keras_bridgetower import data
from keras_bridgetower import object_stores
from keras_bridgetower.data.records import format
from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.training import recipes
from keras_bridgetower.training import train

pytest.importorskip("aiohttp", reason="the extra `object_stores`")
fsspec = pytest.importorskip("fsspec")

pytestmark = [ONE_BACKEND, pytest.mark.filterwarnings("ignore")]
SECONDS = 60.0
FILES = fsspec.filesystem("file")


@pytest.fixture
def folder(tmp_path):
    rows = [streams.record("vqa", i) for i in range(48)]
    streams.write(tmp_path / "set", rows, num_shards=12)
    return tmp_path / "set"


@pytest.fixture
def server(folder):
    """The URL of a server with faults, and them."""
    faults = http_servers.Faults(folder)
    with http_servers.served(faults) as address:
        yield f"http://{address}", faults


def stream(reader, **values):
    change = data.transform("hf", image_size=32)
    order = data.Shuffled(window=2, lanes=2)
    return data.Stream(reader, 8, change, order=order, seed=3, **values)


@pytest.mark.parametrize(
    "least", [20, pytest.param(200, marks=pytest.mark.slow)]
)
def test_batches_are_those_of_a_folder(folder, server, tmp_path, least):
    local = data.open_records(folder, "train")
    shards = [folder / shard["file"] for shard in local.shards]
    # Four shards and their offsets of twelve.
    most = 4 * max(file.stat().st_size + 1000 for file in shards)
    cache = data.ShardCache(tmp_path / "cache", most, SECONDS)
    own = cache.folder / "own.txt"
    cache.folder.mkdir()
    own.write_text("mine")
    os.utime(own, (0, 0))
    url, faults = server
    reader = data.open_records(url, "train", cache=cache)
    assert reader.sources == local.sources and len(reader) == len(local)
    far, near = stream(reader), stream(local)
    assert far.identity == near.identity
    number = 0
    while faults.count < least or number < far.steps_per_epoch:
        streams.assert_same(far.batch(number), near.batch(number))
        number += 1
    for thread in reader.place._threads:
        thread.join()
    kept = [file.stat().st_size for file in cache.folder.iterdir()]
    assert sum(kept) <= most and not list(cache.folder.glob("*.part"))
    assert own.read_text() == "mine"
    again = pickle.loads(pickle.dumps(reader))
    assert again.sample(5) == local.sample(5)


def test_a_stalled_server_is_an_error_in_time(folder, server, tmp_path):
    url, faults = server
    hurried = data.ShardCache(tmp_path / "cache", seconds=0.5)
    index = format.read_index(folder)
    reader = data.RecordReader(url, "train", index, hurried)
    faults.stalled.set()
    for act in (
        lambda: data.open_records(url, "train", cache=hurried),
        lambda: reader.sample(0),
    ):
        started = time.monotonic()
        with pytest.raises(
            data.StoreError, match="`seconds`, is 0.5.*no answer"
        ):
            act()
        assert time.monotonic() - started < 1.0
    # It ends a run, and is no bad sample of it.
    with pytest.raises(Exception, match="could not be read"):
        next(iter(stream(reader).dataset()))
    assert reader.bad_shards == {}


def test_a_damaged_shard_is_a_bad_sample(folder, tmp_path):
    reader = data.open_records(folder, "train")
    first = folder / reader.shards[0]["file"]
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    content = bytearray(first.read_bytes())
    content[40] ^= 1
    (copy / first.name).write_bytes(content)
    cache = data.ShardCache(tmp_path / "cache")
    far = data.open_records(copy.as_uri(), "train", cache=cache)
    with pytest.raises(data.DamagedRecord, match="checksum differs"):
        far.sample(0)
    # It is not fetched again for each of its samples.
    started = time.monotonic()
    with pytest.raises(data.DamagedRecord, match="checksum differs"):
        far.sample(1)
    assert time.monotonic() - started < 0.1
    last = len(reader) - 1
    assert far.sample(last) == reader.sample(last)
    assert list(far.verify()) == [first.name]


def test_wrong_uses_of_stores_are_rejected(folder):
    with pytest.raises(ValueError, match="`cache` is that of object stores"):
        data.open_records(folder, "train", cache=data.ShardCache())
    with pytest.raises(ValueError, match="with '://'"):
        data.open_records(pathlib.Path("s3://bucket/set"), "train")


def test_what_is_refused_is_no_damage(folder, tmp_path):
    """A refusal, and a full disk, end at once and lose no sample."""
    cache = data.ShardCache(tmp_path / "cache")
    reader = data.open_records(folder.as_uri(), "train", cache=cache)
    for error in (PermissionError("denied"), OSError(28, "No space left")):
        refuse = mock.Mock(side_effect=error)
        with mock.patch.object(type(FILES), "get_file", refuse):
            with pytest.raises(data.StoreError, match=str(error.args[-1])):
                reader.sample(0)
        refuse.assert_called_once()
    assert reader.bad_shards == {}
    local = data.open_records(folder, "train")
    assert reader.sample(0) == local.sample(0)
    # Nor is a file of another size, such as an error page.
    copy = tmp_path / "copy"
    shutil.copytree(folder, copy)
    (copy / local.shards[0]["file"]).write_bytes(b"try again later")
    cache = data.ShardCache(tmp_path / "other", seconds=1.0)
    far = data.open_records(copy.as_uri(), "train", cache=cache)
    with pytest.raises(data.StoreError, match="differs from the saved"):
        far.sample(0)
    assert far.bad_shards == {}


def test_processes_fetch_a_file_once(folder, tmp_path):
    """Two processes share a cache; the second waits for the first."""
    cache = data.ShardCache(tmp_path / "cache")
    readers = [
        data.open_records(folder.as_uri(), "train", cache=cache)
        for _ in range(2)
    ]
    fetched, whole = [], type(FILES).get_file

    def slow(store, name, *told, **more):
        fetched.append(name)
        time.sleep(0.2)
        whole(store, name, *told, **more)

    with mock.patch.object(type(FILES), "get_file", slow):
        threads = [
            threading.Thread(target=reader.sample, args=(0,))
            for reader in readers
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert len(fetched) == len(set(fetched)) == 2


class Hosts(Strategy):
    """One of eight machines."""

    def gather_text(self, text):
        return [f"host {i}" for i in range(8)]


def test_machines_fetch_a_data_set_about_once(tmp_path, capsys):
    """`train` takes as many lanes as machines; by one, each fetches all."""
    rows = [streams.record("text_classification", i) for i in range(640)]
    folder = tmp_path / "set"
    streams.write(folder, rows, "text_classification", num_shards=64)
    size = sum(file.stat().st_size for file in folder.glob("train-*"))
    recipe = recipes.get("glue").replace(batch_size=16)

    def share(lanes, host):
        """Return the share of the data set that a machine fetches."""
        cache = data.ShardCache(tmp_path / f"{lanes} {host}")
        reader = data.open_records(folder.as_uri(), "train", cache=cache)
        settings = types.SimpleNamespace(window=2, lanes=lanes)
        order = train.choose_order(recipe, [reader], settings, Hosts())
        own = data.Stream(reader, 16, order=order, num_hosts=8, host=host)
        for number in range(own.steps_per_epoch):
            own.batch(number)
        for thread in reader.place._threads:
            thread.join()
        fetched = [f.stat().st_size for f in cache.folder.glob("*.shard")]
        return sum(fetched) / size

    # Each eight shards, two of the next epoch, and that of the first sample.
    assert 1.0 <= sum(share(None, host) for host in range(8)) < 1.4
    assert "each of 64 shards 1.00 times an epoch" in capsys.readouterr().out
    assert share(1, host=0) == pytest.approx(1)


@pytest.mark.slow
def test_batches_are_those_of_a_bucket(folder, tmp_path, monkeypatch):
    """By s3fs, from a server that speaks S3."""
    with s3_server.bucket("mine", monkeypatch):
        rows = [streams.record("vqa", i) for i in range(48)]
        streams.write("s3://mine/set", rows, num_shards=12)
        cache = data.ShardCache(tmp_path / "cache", seconds=SECONDS)
        far = stream(data.open_records("s3://mine/set", "train", cache=cache))
        near = stream(data.open_records(folder, "train"))
        for number in range(far.steps_per_epoch):
            streams.assert_same(far.batch(number), near.batch(number))


def written(folder, on_shard=None, num_shards=6):
    rows = [streams.record("captions", i) for i in range(24)]
    values = {"task": "captions", "definition": "Own.", "seed": 1}
    values |= {"num_shards": num_shards, "on_shard": on_shard}
    data.write_shards(folder, "train", rows, **values)


def test_a_store_gets_the_files_of_a_folder(store, tmp_path):
    """Also after an interruption, which repeats no finished shard."""
    url, uploads = "memory://mine/set", []

    def stop(done, total):
        if done == 4:
            raise KeyboardInterrupt

    upload = type(store).put_file

    def counted(store, path, *args, **kwargs):
        uploads.append(path)
        upload(store, path, *args, **kwargs)

    with mock.patch.object(type(store), "put_file", counted):
        with pytest.raises(KeyboardInterrupt):
            written(url, stop)
        assert len(uploads) == 8
        # A shard that the index names, but that is not whole.
        store.pipe_file("/mine/set/train-00002-of-00006.tfrecord", b"0")
        written(url)
    assert len(uploads) == 8 + 6
    for count in (6, 5):
        written(url, num_shards=count)
        local = tmp_path / f"{count}"
        written(local, num_shards=count)
        found = {
            path.rpartition("/")[2]: store.cat_file(path)
            for path in store.find("/mine/set")
        }
        assert found == {
            path.name: path.read_bytes()
            for path in local.iterdir()
            if path.suffix != ".lock"
        }
    reader = data.open_records(url, "train")
    assert reader.verify() == {}


def test_a_read_ends_at_its_largest_size(tmp_path, monkeypatch):
    """Endless files, packed ones, and those that drip: none is read on."""
    monkeypatch.setattr(format, "_LARGEST_INDEX", 10**6)
    sent, packed = collections.Counter(), gzip.compress(bytes(64 * 10**6))

    def answer(request):
        kind = request.path.split("/")[1]
        if kind == "packed":
            http_servers.send(request, 200, packed, Content_Encoding="gzip")
            return
        http_servers.send(request, 200)
        size, pause = (2**16, 0) if kind == "endless" else (5, 0.01)
        while sent[kind] < 300 * 10**6:
            request.wfile.write(bytes(size))
            sent[kind] += size
            time.sleep(pause)

    with http_servers.served(answer) as address:
        for kind, why in (
            ("endless", "more than 1,000,000 bytes"),
            ("packed", "more than 1,000,000 bytes"),
            ("drips", "bytes a second"),
        ):
            cache = data.ShardCache(tmp_path / "cache", seconds=1.0)
            with pytest.raises(data.StoreError, match=why):
                data.open_records(f"http://{address}/{kind}", "train", 0, cache)
        assert sent["endless"] < 50 * 10**6
        # An abandoned download does not go on.
        time.sleep(0.3)
        before = sent["drips"]
        time.sleep(0.3)
        assert sent["drips"] == before
    assert not list(cache.folder.glob("*.part"))


SECRETS = ("me", "s3cret word", "aBcD1234")
WITH_SECRETS = "http://me:s3cret%20word@{}/set?X-Signature=aBcD1234"


def check_hidden(text):
    for secret in (*SECRETS, "s3cret"):
        assert not re.search(rf"\b{secret}\b", text), text


def test_a_signed_url_opens_each_file(folder, tmp_path):
    """A password and a query are sent, and shown nowhere."""
    wanted = b"Basic " + base64.b64encode(b"me:s3cret word")

    def answer(request):
        path, _, query = request.path.partition("?")
        allowed = request.headers["Authorization"].encode() == wanted
        if not allowed or query != "X-Signature=aBcD1234":
            http_servers.send(request, 403)
            return
        body = (folder / path.removeprefix("/set/")).read_bytes()
        http_servers.send(request, 200, body, Content_Length=str(len(body)))

    cache = data.ShardCache(tmp_path / "cache", seconds=5.0)
    near = data.open_records(folder, "train")
    with http_servers.served(answer) as address:
        url = WITH_SECRETS.format(address)
        far = data.open_records(url, "train", cache=cache)
        assert far.sample(7) == near.sample(7)
        again = pickle.loads(pickle.dumps(far))
        assert again.sample(30) == near.sample(30)
    shown = [repr(far), str(far.place), *map(str, cache.folder.iterdir())]
    check_hidden(" ".join(shown))


@pytest.mark.parametrize("code", [302, 403, 404, 503])
def test_errors_and_logs_show_no_secret(tmp_path, caplog, monkeypatch, code):
    """Nor one of an address to which the server points."""
    monkeypatch.setattr(object_stores, "_PAUSE", 0.01, raising=False)

    def answer(request):
        to = "/other?X-Signature=aBcD1234"
        is_first = code == 302 and request.path != to
        http_servers.send(
            request, 302 if is_first else max(code, 403), Location=to
        )

    cache = data.ShardCache(tmp_path / "cache", seconds=1.0)
    with http_servers.served(answer) as address:
        url = WITH_SECRETS.format(address)
        started = time.monotonic()
        with pytest.raises(data.StoreError, match=f"http://{address}/set") as e:
            data.open_records(url, "train", cache=cache)
        # What is refused is not tried again.
        assert code == 503 or time.monotonic() - started < 0.5
        told = "".join(traceback.format_exception(e.value))
        assert bool(caplog.text) == (code == 503)
    # The test itself shows no value in its traceback.
    check_hidden(told + caplog.text)


def test_all_that_fails_is_tried_again(store, monkeypatch):
    """Each method of the store fails twice before it succeeds."""
    calls = collections.Counter()
    with monkeypatch.context() as patched:
        patched.setattr(object_stores, "_PAUSE", 0.001, raising=False)
        for name in ("find", "pipe_file", "put_file", "get_file", "rm_file"):
            whole = getattr(type(store), name)

            def fails(*told, name=name, whole=whole, **more):
                calls[name] += 1
                if calls[name] % 3:
                    raise OSError(f"500 of {name}")
                return whole(*told, **more)

            patched.setattr(type(store), name, fails)
        for count in (2, 1):
            written("memory://mine/set", num_shards=count)
        reader = data.open_records("memory://mine/set", "train")
        assert reader.verify() == {} and len(reader.files) == 1
    assert len(calls) == 5 and not any(n % 3 for n in calls.values())
