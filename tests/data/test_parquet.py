"""Parquet files with pictures, read in place."""

import numpy as np
import pyarrow
import pytest
import streams
from builders import ONE_BACKEND
from pyarrow import parquet
from record_rows import HEAD

from keras_bridgetower import data
from keras_bridgetower.data.records import row_groups

pytestmark = ONE_BACKEND
ROWS = 7  # In each row group.
COLUMNS = {
    "img2dataset": {"image": "jpg", "text": "txt"},
    "hugging_face": {"image": "image", "text": "caption"},
}


def table(layout, pictures, texts):
    """Return a table as img2dataset or Hugging Face's `datasets` make it."""
    if layout == "img2dataset":
        urls = [f"places/{i}" for i in range(len(texts))]
        return pyarrow.table({"url": urls, "txt": texts, "jpg": pictures})
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": "string"})
    structs = [{"bytes": p, "path": None} for p in pictures]
    images = pyarrow.array(structs, kind)
    return pyarrow.table({"image": images, "caption": texts})


def write(path, layout, pictures, texts, rows=ROWS):
    parquet.write_table(table(layout, pictures, texts), path, rows)


def index(folder, layout="img2dataset", **values):
    return data.index_parquet(
        folder, "train", "Made by a test.", **COLUMNS[layout] | values
    )


@pytest.fixture
def folder(tmp_path):
    """Two files of img2dataset: rows 0 to 19, and 20 to 29."""
    for name, numbers in (("00000", range(20)), ("00001", range(20, 30))):
        pictures = [streams.picture(n, form="JPEG") for n in numbers]
        texts = [f"a picture of {n}" for n in numbers]
        write(tmp_path / f"{name}.parquet", "img2dataset", pictures, texts)
    return tmp_path


def opened(folder, **values):
    change = data.transform("blip_randaug_wohf", image_size=32)
    reader = data.open_records(folder, "train")
    values = {"order": data.Shuffled(window=2)} | values
    return data.Stream(reader, 8, change, seed=3, **values)


@pytest.mark.parametrize("layout", COLUMNS)
def test_batches_are_those_of_a_data_set_of_records(tmp_path, layout):
    """Five shards of records, and as many row groups in two files."""
    records = [streams.record("captions", n, samples=1) for n in range(35)]
    reader = streams.write(tmp_path / "records", records, "captions", 5)
    rows = [reader.record(n) for n in range(35)]
    keys = {}
    for name, part in (("a", rows[:14]), ("b", rows[14:])):
        keys |= {f"0/{name}/{i}": row.key for i, row in enumerate(part)}
        pictures = [row.images[0] for row in part]
        texts = [row.samples[0].text for row in part]
        write(tmp_path / f"{name}.parquet", layout, pictures, texts)
    index(tmp_path, layout)
    ours, theirs = opened(tmp_path), opened(tmp_path / "records")
    for number in range(2 * ours.steps_per_epoch):
        (x, y), (other, of_other) = ours.batch(number), theirs.batch(number)
        assert np.array_equal(x["images"], other["images"])
        assert np.array_equal(x["text"], other["text"])
        names = [f"0/{keys[name.decode()]}" for name in y]
        assert names == [name.decode() for name in of_other]


def test_a_row_may_have_several_texts_or_lack_a_part(tmp_path):
    pictures = [streams.picture(0), None, b"", streams.picture(3), HEAD]
    texts = [["a", "b"], ["c"], ["d"], [], ["e", None]]
    write(tmp_path / "x.parquet", "hugging_face", pictures, texts, rows=2)
    with pytest.raises(ValueError, match="4 of 5 .* x/1: it has no picture"):
        index(tmp_path, "hugging_face")
    entry = index(tmp_path, "hugging_face", max_bad_share=0.8)
    left_out = [row for file in entry["shards"] for row in file["left_out"]]
    why = ["picture", "picture", "text", "text"]
    assert left_out == [
        [f"x/{row}", f"it has no {part}"] for row, part in enumerate(why, 1)
    ]
    reader = data.open_records(tmp_path, "train")
    assert [reader.sample(i).sample.text for i in range(2)] == ["a", "b"]
    assert len(reader) == 2 and reader.record(0).images == (pictures[0],)


def test_row_groups_are_read_once_an_epoch_and_memory_is_bounded(
    folder, monkeypatch
):
    index(folder)
    read = []

    class Counted(row_groups.RowGroup):
        def __init__(self, *told):
            read.append(told[1])
            super().__init__(*told)

    monkeypatch.setattr(row_groups, "RowGroup", Counted)
    stream = opened(folder)
    for number in range(stream.steps_per_epoch):
        stream.batch(number)
    assert sorted(read) == ["00000.parquet"] * 3 + ["00001.parquet"] * 2
    largest = max(len(streams.picture(n, form="JPEG")) for n in range(30))
    monkeypatch.setattr(row_groups, "_MOST", 4 * ROWS * (largest + 40))
    with pytest.raises(ValueError, match=r"but `order` reads 5: .* smaller"):
        opened(folder)
    opened(folder, order=data.Shuffled(window=1)).batch(0)


def test_changed_files_are_damaged_or_indexed_again(folder):
    index(folder)
    reader = data.open_records(folder, "train")
    path = folder / "00001.parquet"
    content = bytearray(path.read_bytes())
    place = content.index(streams.picture(23, form="JPEG")[-60:-30])
    content[place] ^= 1
    path.write_bytes(content)
    with pytest.raises(data.DamagedRecord, match="00001.parquet .* sum is"):
        reader.sample(23)
    assert reader.sample(24).sample.text == "a picture of 24"
    assert list(reader.verify()) == ["00001.parquet"]
    # Of the same size, without a row group.
    path.write_bytes(bytes(len(content)))
    with pytest.raises(data.DamagedRecord, match="00001.parquet is damaged"):
        data.open_records(folder, "train").sample(23)
    write(path, "img2dataset", [streams.picture(0)], ["new"])
    with pytest.raises(ValueError, match="1 of 2 shards are damaged"):
        data.open_records(folder, "train")
    before = (folder / "00000.offsets.npy").stat().st_mtime_ns
    # One machine indexes the new file, and the last call joins.
    assert len(index(folder, part=(1, 2))["shards"]) == 1
    assert len(index(folder)["shards"]) == 2
    assert not list(folder.glob("*part-*"))
    assert (folder / "00000.offsets.npy").stat().st_mtime_ns == before
    assert data.open_records(folder, "train").sample(20).sample.text == "new"
    # Other columns are another data set.
    index(folder, text="url")
    reader = data.open_records(folder, "train")
    assert reader.sample(3).sample.text == "places/3"


def test_other_files_are_rejected(folder):
    for changes, told in (
        ({"image": "png"}, "`image` must be .* Received: 'png', of 'url'"),
        ({"image": "txt"}, r"`image` must be .* 'txt' \(string\)"),
        ({"text": "jpg"}, "`text` must be a column of strings"),
        ({"pattern": "x*"}, r"must have files 'x\*'"),
    ):
        with pytest.raises(ValueError, match=told):
            index(folder, **changes)
    (folder / "00002.parquet").write_bytes(b"PAR1")
    with pytest.raises(ValueError, match="00002.parquet must be a whole"):
        index(folder)
    (folder / "00002.parquet").rename(folder / "other.pq")
    with pytest.raises(ValueError, match="must end in '.parquet'"):
        index(folder, pattern="*.pq")


def test_an_object_store_has_the_same_rows(folder):
    pytest.importorskip("fsspec")
    index(folder)
    cache = data.ShardCache(folder / "cache")
    far = data.open_records(folder.as_uri(), "train", cache=cache)
    near = data.open_records(folder, "train")
    far.read_ahead(list(range(5)))
    for number in (29, *range(0, 30, 4)):
        assert far.sample(number) == near.sample(number)


def test_a_text_that_is_not_utf_8_is_one_bad_row(tmp_path):
    """In a string column, as other programs may write it."""
    texts = pyarrow.array([b"a", b"\xff\xfe", b"c"]).cast("string", safe=False)
    pictures = [streams.picture(n, form="JPEG") for n in range(3)]
    write(tmp_path / "x.parquet", "img2dataset", pictures, texts)
    with pytest.raises(ValueError, match="1 of 3 .* x/1: its text is not UTF"):
        index(tmp_path)
    index(tmp_path, max_bad_share=0.4)
    reader = data.open_records(tmp_path, "train")
    assert [reader.sample(i).sample.text for i in range(2)] == ["a", "c"]


def test_few_bytes_that_ask_for_many_are_refused(tmp_path):
    """Neither 200,000 times one value, nor one page of 80 MB of zeros."""
    one = pyarrow.array(np.zeros(200_000, "int32"))
    columns = [
        pyarrow.DictionaryArray.from_arrays(one, [value])
        for value in (b"x" * 1000, "a text")
    ]
    values = pyarrow.table({"jpg": columns[0], "txt": columns[1]})
    zeros = pyarrow.table({"jpg": [bytes(80_000_000)], "txt": ["a text"]})
    made = {"values": (values, "snappy"), "zeros": (zeros, "zstd")}
    for name, (table, compression) in made.items():
        (tmp_path / name).mkdir()
        path = tmp_path / name / "x.parquet"
        kind = {"compression": compression, "store_schema": False}
        # Statistics would hold the largest value.
        kind |= {"row_group_size": 200_000, "write_statistics": False}
        parquet.write_table(table, path, **kind)
        assert path.stat().st_size < 50_000
    del values, zeros, table, made
    before = pyarrow.default_memory_pool()
    counted = pyarrow.proxy_memory_pool(before)
    pyarrow.set_memory_pool(counted)
    try:
        for name in ("values", "zeros"):
            with pytest.raises(ValueError, match="row group 0 is too large"):
                index(tmp_path / name)
    finally:
        pyarrow.set_memory_pool(before)
    assert counted.max_memory() < 75_000_000
