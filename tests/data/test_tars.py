"""Tar files of WebDataset, read in place."""

import gc
import io
import json
import shutil
import tarfile
import tempfile
import tracemalloc
from unittest import mock

import pytest
import streams
from builders import ONE_BACKEND

from keras_bridgetower import data
from keras_bridgetower.data.records import format
from keras_bridgetower.files import sha256
from keras_bridgetower.object_stores import Store

pytestmark = ONE_BACKEND
TOLD = "Made by a test."
LONG = "a" * 120  # Of a PAX header, which comes before that of the file.


def add(tar, name, content):
    member = tarfile.TarInfo(name)
    member.size = len(content)
    tar.addfile(member, io.BytesIO(content))


def write(path, numbers, mode="w"):
    """Write a tar file as img2dataset does; number 5 has no caption."""
    with tarfile.open(path, mode, format=tarfile.PAX_FORMAT) as tar:
        for number in numbers:
            key = f"{number:05}" if number != 3 else f"part/{LONG}{number}"
            add(tar, f"{key}.jpg", streams.picture(number, form="JPEG"))
            if number != 5:
                add(tar, f"{key}.txt", f"a picture of {number}\n".encode())
            add(tar, f"{key}.json", json.dumps({"key": key}).encode())


@pytest.fixture
def folder(tmp_path):
    write(tmp_path / "00000.tar", range(6))
    write(tmp_path / "00001.tar", range(6, 16))
    return tmp_path


def index(folder, **values):
    return data.index_tars(
        folder, "train", TOLD, **{"max_bad_share": 0.1} | values
    )


# The library leaves files open.
@pytest.mark.filterwarnings("ignore")
def test_samples_are_those_of_the_files_and_of_webdataset(folder):
    entry = index(folder)
    reader = data.open_records(folder, "train")
    numbers = [n for n in range(16) if n != 5]
    assert len(reader) == 15 and reader.task == "captions"
    assert reader.sources == {reader.sample(0).source: 15}
    for place, number in enumerate(numbers):
        item = reader.sample(place)
        assert item.images == (streams.picture(number, form="JPEG"),)
        assert item.sample.text == f"a picture of {number}"
    [left_out] = [row for shard in entry["shards"] for row in shard["left_out"]]
    assert left_out == ["00005", "it has no caption"]
    assert reader.verify() == {}
    library = pytest.importorskip("webdataset")
    names = [str(folder / f"0000{i}.tar") for i in range(2)]
    rows = library.WebDataset(names, shardshuffle=False)
    for place, row in enumerate(row for row in rows if "txt" in row):
        item = reader.sample(place)
        assert (item.images, item.key) == ((row["jpg"],), row["__key__"])
        assert item.sample.text == row["txt"].decode().strip()
    assert place == 14
    gc.collect()


def test_files_of_a_store_are_indexed_there(folder, store):
    url = "memory://tars/set"
    store.put(f"{folder}/", "/tars/set/", recursive=True)
    fetched, fetch = [], type(store).get_file

    def counted(store, path, *args, **kwargs):
        fetched.append(path.rpartition("/")[2])
        return fetch(store, path, *args, **kwargs)

    with mock.patch.object(type(store), "get_file", counted):
        for number in range(2):
            index(url, part=(number, 2))
        assert index(url) == index(folder)
        index(url)
        changed = [name for name in fetched if name.endswith(".tar")]
        assert sorted(changed) == ["00000.tar", "00001.tar"]
        write(folder / "00001.tar", range(7, 16))
        store.put_file(f"{folder}/00001.tar", "/tars/set/00001.tar")
        fetched.clear()
        assert index(url) == index(folder)
        assert "00001.tar" in fetched and "00000.tar" not in fetched
    for path in folder.iterdir():
        if path.suffix != ".lock":
            found = store.cat_file(f"/tars/set/{path.name}")
            assert found == path.read_bytes()


@pytest.fixture
def parts(tmp_path):
    """A folder with indexes of three parts, and the index of one call."""
    for number in range(5):
        write(tmp_path / f"{number}.tar", range(3 * number, 3 * number + 3))
    index(tmp_path)
    whole = (tmp_path / "index.json").read_bytes()
    for path in tmp_path.glob("*[!r]"):
        path.unlink()
    for number in range(3):
        # A part has more bad samples than are allowed, but the whole has not.
        index(tmp_path, part=(number, 3))
    return tmp_path, whole


def test_joined_parts_are_the_index_of_one_call(parts):
    folder, whole = parts
    made = {path: path.stat().st_mtime_ns for path in folder.glob("*.npy")}
    assert len(made) == 5 and not (folder / "index.json").exists()
    index(folder)
    assert (folder / "index.json").read_bytes() == whole
    assert not list(folder.glob("*part*"))
    assert len(data.open_records(folder, "train")) == 14
    # Parts that are indexed again read only new files.
    write(folder / "5.tar", [15])
    for number in range(2):
        index(folder, part=(number, 2))
    assert len(index(folder)["shards"]) == 6
    assert all(path.stat().st_mtime_ns == made[path] for path in made)


def test_what_parts_lack_or_have_wrong_is_read_when_they_are_joined(parts):
    folder, whole = parts
    first, second, third = sorted(folder.glob("*.json"))
    # A part that is missing, a copy, and a file that changed since.
    second.unlink()
    shutil.copy(first, third)
    write(folder / "0.tar", [20])
    assert index(folder)["shards"][0]["records"] == 1
    write(folder / "0.tar", range(3))
    index(folder)
    assert (folder / "index.json").read_bytes() == whole


def test_bad_samples_of_parts_count_when_they_are_joined(parts):
    folder, _ = parts
    with pytest.raises(ValueError, match="1 of 15 records .* no caption"):
        index(folder, max_bad_share=0.01)
    assert len(list(folder.glob("*part*.json"))) == 3
    with pytest.raises(ValueError, match="`part` must be one of"):
        index(folder, part=(3, 3))
    with pytest.raises(ValueError, match="such as `\\(0, 8\\)`.*part=3"):
        index(folder, part=3)


def test_damage_is_that_of_one_sample(folder):
    index(folder)
    reader = data.open_records(folder, "train")
    path = folder / "00000.tar"
    content = bytearray(path.read_bytes())
    place = content.index(streams.picture(2, form="JPEG"))
    content[place + 20] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DamagedRecord, match="its sum is wrong") as caught:
        reader.sample(2)
    assert caught.value.key == "00002"
    assert reader.sample(3).sample.text == "a picture of 3"


def test_other_files_are_rejected(folder):
    with pytest.raises(ValueError, match="1 of 16 records .* no caption"):
        index(folder, max_bad_share=0.0)
    with pytest.raises(ValueError, match="must have files 'x.tar'"):
        index(folder, pattern="x.tar")
    write(folder / "00002.tar", [1], "w:gz")
    with pytest.raises(ValueError, match="00002.tar must be .* not compressed"):
        index(folder)


def test_a_caption_that_is_not_utf_8_is_one_bad_sample(tmp_path):
    """So is a name: JSON has no room for either."""
    texts = {"0": b"zero", "1": b"\xff\xfe", "\udcff": b"two", "3": b"three"}
    path, kind = tmp_path / "0.tar", tarfile.GNU_FORMAT
    with tarfile.open(path, "w", format=kind) as tar:
        for key, text in texts.items():
            add(tar, f"{key}.jpg", streams.picture(0, form="JPEG"))
            add(tar, f"{key}.txt", text)
    entry = index(tmp_path, max_bad_share=0.5)
    [shard] = entry["shards"]
    assert [key for key, _ in shard["left_out"]] == ["1", "?"]
    assert all("is not UTF-8" in why for _, why in shard["left_out"])
    reader = data.open_records(tmp_path, "train")
    texts = [reader.sample(i).sample.text for i in range(len(reader))]
    assert texts == ["zero", "three"]


def members(contents):
    """Return the bytes of files in a tar file, without its end."""
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as tar:
        for name, content in contents.items():
            add(tar, name, content)
        return file.getvalue()[: tar.offset]


def sparse_member(name, size):
    """Return a member of GNU's sparse format: 3 bytes before a hole."""
    info = tarfile.TarInfo(name)
    info.size, info.type = 3, tarfile.GNUTYPE_SPARSE
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    block[386:398], block[398:410] = b"%011o\0" % 0, b"%011o\0" % 3
    block[483:495] = b"%011o\0" % size
    block[148:156] = b" " * 8
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block) + b"hey".ljust(512, b"\0")


def test_sizes_that_a_file_does_not_hold_are_refused(tmp_path, monkeypatch):
    """Sparse members of 3 GiB, a hole on the disk, and negative sizes."""
    monkeypatch.setattr(format, "LARGEST_SAMPLE", 2**24, raising=False)
    good = members({"0.jpg": streams.picture(0, form="JPEG"), "0.txt": b"zero"})
    path = tmp_path / "0.tar"
    for kind, other in (("jpg", "txt"), ("txt", "jpg")):
        data_of_one = members({f"1.{other}": b"text"})
        data_of_one += sparse_member(f"1.{kind}", 3 * 2**30)
        path.write_bytes(good + data_of_one + bytes(1024))
        entry = index(tmp_path, max_bad_share=0.5)
        assert entry["shards"][0]["left_out"] == [
            ["1", f"its {kind} is sparse or too large"]
        ]
        # An index of others may name it nevertheless.
        with pytest.raises(ValueError, match="is too large"):
            format.decode_tar(data_of_one)
    # Bytes that take no room on the disk.
    info = tarfile.TarInfo("1.jpg")
    info.size = 2**25
    with open(path, "wb") as file:
        file.write(info.tobuf())
        file.seek(info.size, 1)
        file.write(good + bytes(1024))
    tracemalloc.start()
    entry = index(tmp_path, max_bad_share=0.5)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert "too large" in entry["shards"][0]["left_out"][0][1]
    assert entry["shards"][0]["sha256"] == sha256(path) and most < 2**23
    assert data.open_records(tmp_path, "train").sample(0).sample.id == "0"
    info.size = -2 * 512
    block = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    path.write_bytes(good + block + bytes(1024))
    with pytest.raises(ValueError, match="0.tar must be .* negative size"):
        index(tmp_path)


def test_names_of_a_listing_never_leave_their_place(
    store, tmp_path, monkeypatch
):
    """They overwrite and delete no file beside the copies, and none there."""
    url = "memory://tars/set"
    (tmp_path / "copies").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "copies"))
    own = tmp_path / "own.tar"
    own.write_bytes(b"mine")
    write(tmp_path / "good.tar", range(6, 9))
    content = (tmp_path / "good.tar").read_bytes()
    bad = ("../../own.tar", "/etc/own.tar", "..\\own.tar", "a//b.tar")
    bad += ("a/b.tar",)
    for name in ("good.tar", *bad):
        store.pipe_file(f"/tars/set/{name}", content)
    entry = index(url)
    assert [shard["file"] for shard in entry["shards"]] == ["good.tar"]
    assert own.read_bytes() == b"mine"
    names = Store(url).names()
    made = {"good.tar", "good.offsets.npy", "index.json"}
    assert {*names} == made | {"a/b.tar"}
    Store(url).remove(names)
    left = {path.removeprefix("/tars/set/") for path in store.find("/tars")}
    assert left == {*bad} - {"a/b.tar"}
