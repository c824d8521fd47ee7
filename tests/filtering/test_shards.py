"""Tars that end early, go on after their end, or hold a name twice."""

import gzip
import io
import os
import tarfile

import pytest
import web_data
from builders import FASTEST

from keras_bridgetower.apps.filtering.folder import FilterFolder
from keras_bridgetower.apps.filtering.folder import write_scores
from keras_bridgetower.apps.filtering.samples import find_shards

pytestmark = FASTEST


@pytest.fixture
def whole(tmp_path):
    """The bytes of a tar of 6 samples, and where its headers begin."""
    path = tmp_path / "whole.tar"
    web_data.write_tar(path, web_data.samples(0, count=6))
    with tarfile.open(path) as tar:
        headers = [member.offset for member in tar]
    assert len(headers) == 18
    return path.read_bytes(), headers


def read(path, data):
    """The number of good samples of a tar, and the errors of the others."""
    path.write_bytes(data)
    [shard] = find_shards(path)
    samples = list(shard.samples())
    bad = [(s.key, s.error) for s in samples if s.error]
    return len(samples) - len(bad), bad


def damaged(whole, headers):
    data = bytearray(whole)
    # A digit of the header's own sum.
    data[headers[9] + 150] ^= 0xFF
    return bytes(data)


def _end(headers):
    # The last text fits into one block.
    return headers[-1] + 2 * 512


# What is done to the bytes of a tar whose headers begin at places, and how many
# samples are still good.
BROKEN = {
    "a damaged header": (damaged, 3),
    "cut between samples": (lambda data, headers: data[: headers[9]], 3),
    "cut in a header": (lambda data, headers: data[: headers[9] + 100], 3),
    "cut before its end": (lambda data, headers: data[: _end(headers)], 6),
    "two tars": (lambda data, headers: data * 2, 6),
    "other bytes after its end": (lambda data, _: data + b"0", 6),
}


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", BROKEN)
def test_damaged_tars(name, packed, whole, tmp_path):
    change, count = BROKEN[name]
    data = change(*whole)
    path = tmp_path / ("a.tar.gz" if packed else "a.tar")
    good, bad = read(path, gzip.compress(data) if packed else data)
    assert good == count
    [(key, error)] = bad
    assert key == path.name
    assert error.startswith("it cannot be read further: "), error


def test_intact_tars_and_others(whole, tmp_path):
    data, headers = whole
    for zeros in (0, 20 * 512):
        ended = data[: _end(headers)] + bytes(1024 + zeros)
        assert read(tmp_path / "a.tar", ended) == (6, [])
        assert read(tmp_path / "a.tgz", gzip.compress(ended)) == (6, [])
    good, bad = read(tmp_path / "a.tgz", gzip.compress(data) * 2)
    assert good == 6 and [key for key, _ in bad] == ["a.tgz"]
    # Within a sample.
    good, bad = read(tmp_path / "a.tar", data[: headers[10]])
    assert good == 3 and [key for key, _ in bad] == ["000000003", "a.tar"]


def write(path, files):
    with tarfile.open(path, "w") as tar:
        for name, data in files:
            member = tarfile.TarInfo(name)
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))


FIRST = [("a.txt", b"first"), ("a.png", b"1")]
SECOND = [("a.txt", b"second"), ("a.png", b"2")]
BETWEEN = [("b.txt", b"between"), ("b.png", b"3")]


def kept(path, folder, itm):
    """The names and bytes of the kept files of a tar, by scores of keys."""
    pytest.importorskip("pyarrow", reason="the extra `data`")
    [shard] = find_shards(path)
    folder = FilterFolder(folder)
    folder.begin({})
    scores = [
        (sample, {} if sample.error else {"itm": itm.get(sample.key, 1.0)})
        for sample in shard.samples()
    ]
    write_scores(folder.scores(shard), scores, ("itm",), shard.state())
    count = folder.keep([shard], ("itm",), "itm", 0.0, write_tars=True)
    with tarfile.open(folder.path / "tars/a.tar") as tar:
        found = [(m.name, tar.extractfile(m).read()) for m in tar]
    return count, found


def test_kept_samples_are_those_that_were_scored(tmp_path):
    """Of a key that occurs twice the first one; the second one is named."""
    path = tmp_path / "a.tar"
    write(path, [*FIRST, *BETWEEN, *SECOND])
    [shard] = find_shards(path)
    first, between, second = shard.samples()
    assert (first.text, between.text) == ("first", "between")
    assert second.key == "a" and "must be in the shard once" in second.error
    assert kept(path, tmp_path / "out", {"b": -9.0}) == (1, FIRST)
    # One sample with two texts, which WebDataset refuses too.
    write(path, [*FIRST, *SECOND])
    [sample] = find_shards(path)[0].samples()
    assert "must have one txt" in sample.error


def test_shards_of_a_data_set(tmp_path):
    (tmp_path / "more").mkdir()
    for name in ("b.tar", "more/a.tar.gz", "more/c.tgz"):
        (tmp_path / name).touch()
    web_data.write_folder(tmp_path / "00000", web_data.samples(0, count=2))
    shards = find_shards(tmp_path)
    assert [s.name for s in shards] == ["00000", "b", "more/a", "more/c"]
    [one] = find_shards(tmp_path / "more/a.tar.gz")
    assert one.name == "a"
    (tmp_path / "00000.tar").touch()
    with pytest.raises(ValueError, match="must have different names"):
        find_shards(tmp_path)


def test_large_pictures_are_not_read(tmp_path):
    """A file of 64 MiB and one byte, without its bytes on the disk."""
    folder = tmp_path / "data"
    web_data.write_folder(folder, [("a", {"txt": b"a cat"})])
    (folder / "a.jpg").touch()
    os.truncate(folder / "a.jpg", 64 * 2**20 + 1)
    [sample] = find_shards(folder)[0].samples()
    assert sample.image == b"" and "at most 67,108,864 bytes" in sample.error
