"""Data sets in an object store: a server with faults, in its own process."""

import pathlib
import pickle
import shutil
import subprocess
import sys
import time
import urllib.request

import numpy as np
import pytest
import streams
from builders import ONE_BACKEND

from keras_bridgetower import data
from keras_bridgetower.data.stream.epoch_order import places_in_lanes

pytest.importorskip("aiohttp", reason="the extra `object_stores`")

pytestmark = [ONE_BACKEND, pytest.mark.filterwarnings("ignore")]
SERVER = pathlib.Path(__file__).with_name("faulty_server.py")
SECONDS = 60.0


class Server:
    """The faulty server of a folder."""

    def __init__(self, folder):
        self._process = subprocess.Popen(
            [sys.executable, SERVER, folder], stdout=subprocess.PIPE, text=True
        )
        self.url = f"http://127.0.0.1:{int(self._process.stdout.readline())}"

    def ask(self, what):
        with urllib.request.urlopen(f"{self.url}/{what}", timeout=10) as answer:
            return int(answer.read())

    def end(self):
        self._process.kill()
        self._process.wait()
        self._process.stdout.close()


@pytest.fixture
def folder(tmp_path):
    rows = [streams.record("vqa", i) for i in range(48)]
    streams.write(tmp_path / "set", rows, num_shards=12)
    return tmp_path / "set"


@pytest.fixture
def server(folder):
    made = Server(folder)
    yield made
    made.end()


def stream(reader, **values):
    change = data.transform("hf", image_size=32)
    order = data.Shuffled(window=2, lanes=2)
    return data.Stream(reader, 8, change, order=order, seed=3, **values)


def check_same(found, wanted):
    for one, other in zip(found, wanted, strict=True):
        if isinstance(one, dict):
            assert one.keys() == other.keys()
            one, other = one.values(), other.values()
            check_same(one, other)
        else:
            np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(
    "least", [20, pytest.param(200, marks=pytest.mark.slow)]
)
def test_batches_are_those_of_a_folder(folder, server, tmp_path, least):
    local = data.open_records(folder, "train")
    shards = [folder / shard["file"] for shard in local.shards]
    # Four shards and their offsets of twelve.
    most = 4 * max(file.stat().st_size + 1000 for file in shards)
    cache = data.ShardCache(tmp_path / "cache", most, SECONDS)
    reader = data.open_records(server.url, "train", cache=cache)
    assert reader.sources == local.sources and len(reader) == len(local)
    far, near = stream(reader), stream(local)
    assert far.identity == near.identity
    number = 0
    while server.ask("faults") < least or number < far.steps_per_epoch:
        check_same(far.batch(number), near.batch(number))
        number += 1
    far._row_maker.readers[0].place._thread.join()
    kept = [f.stat().st_size for f in cache.place.iterdir() if f.is_file()]
    assert sum(kept) <= most and not list(cache.place.glob("*.part"))
    again = pickle.loads(pickle.dumps(reader))
    assert again.sample(5) == local.sample(5)


def test_a_stalled_server_is_an_error_in_time(server, tmp_path):
    cache = data.ShardCache(tmp_path / "cache", seconds=SECONDS)
    reader = data.open_records(server.url, "train", cache=cache)
    hurried = data.ShardCache(tmp_path / "cache", seconds=1.0)
    server.ask("stall")
    for act in (
        lambda: data.open_records(server.url, "train", cache=hurried),
        lambda: type(reader)(
            server.url, "train", streams_index(reader), hurried
        ).sample(0),
    ):
        started = time.monotonic()
        with pytest.raises(data.StoreError, match="within 1 s .*no answer"):
            act()
        assert time.monotonic() - started < 2.0


def streams_index(reader):
    entry = {"definition": reader.definition, "shards": reader.shards}
    splits = {"train": entry}
    return {"task": reader.task, "labels": reader.labels, "splits": splits}


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
    with pytest.raises(data.DamagedRecord, match="another sum"):
        far.sample(0)
    # It is not fetched again for each of its samples.
    started = time.monotonic()
    with pytest.raises(data.DamagedRecord, match="another sum"):
        far.sample(1)
    assert time.monotonic() - started < 0.1
    last = len(reader) - 1
    assert far.sample(last) == reader.sample(last)
    assert list(far.verify()) == [first.name]


def test_a_cache_is_of_object_stores(folder):
    with pytest.raises(ValueError, match="`cache` is that of object stores"):
        data.open_records(folder, "train", cache=data.ShardCache())
    with pytest.raises(ValueError, match="`most_bytes` must be"):
        data.ShardCache(most_bytes=0)


@pytest.mark.parametrize("rows", [1, 7, 64, 100, 1001])
@pytest.mark.parametrize("batch_size, lanes", [(8, 1), (8, 4), (64, 8)])
def test_lanes_have_each_row_once(rows, batch_size, lanes):
    given = rows, batch_size, lanes
    places = places_in_lanes(np.arange(rows), *given)
    assert sorted(places) == list(range(rows))
    share = batch_size // lanes
    for start in range(0, rows // batch_size * batch_size - lanes, batch_size):
        batch = places[start : start + batch_size].reshape(lanes, share)
        if (lanes * (start // batch_size + 1) * share) > rows // lanes * lanes:
            break
        assert (batch // (rows // lanes) == np.arange(lanes)[:, None]).all()


def test_hosts_of_lanes_read_other_shards(tmp_path):
    rows = [streams.record("text_classification", i) for i in range(160)]
    reader = streams.write(tmp_path, rows, "text_classification", num_shards=16)
    order = data.Shuffled(window=2, lanes=4)
    whole = data.Stream(reader, 16, order=order)
    seen = []
    for host in range(4):
        one = whole.of_host(4, host)
        ids = [one.ids(number) for number in range(one.steps_per_epoch - 1)]
        seen.append({int(i.split("-")[0][1:]) for part in ids for i in part})
        for number in range(2):
            assert ids[number] == whole.ids(number)[4 * host : 4 * host + 4]
    shard_of = {}
    for i in range(len(reader)):
        item = reader.sample(i)
        shard_of[int(item.key[1:])] = reader.locate(i)[0]
    shards = [{shard_of[record] for record in records} for records in seen]
    # A window may lie on the border of two lanes.
    assert all(len(found) <= 16 // 4 + 2 for found in shards)
