"""Own tables: misspelled columns, ids, paths of pictures, memory."""

import os
import pathlib
import tracemalloc

import numpy as np
import pytest
import record_rows
from builders import ONE_BACKEND
from miniature_pictures import pictures
from test_own_data import ROW
from test_own_data import own

from keras_bridgetower.data.datasets.by_name import open_dataset
from keras_bridgetower.data.records import write

pytestmark = ONE_BACKEND
NEARLY = ["answers", "Answer", " answer", "anwser", "labels", "Text ", "ID"]


@pytest.mark.parametrize("column", NEARLY)
@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_misspelled_columns_are_rejected(column, kind, tmp_path):
    rows = [ROW | {column: "red"}]
    if kind == "csv":
        rows = f"image,text,{column}\n0.jpg,what?,red\n"
    data = own(tmp_path, {f"train.{kind}": rows})
    wanted = "id" if column == "ID" else column.strip().lower()[:4]
    message = f"train.{kind} must spell the column '{wanted[:2]}.*'{column}'"
    with pytest.raises(ValueError, match=message):
        data.split("train")


def test_unread_columns_are_listed(tmp_path):
    rows = [ROW | {"notes": "none", "class": "red"}]
    data = own(tmp_path, {"train.jsonl": rows})
    assert data.task == "captions"
    message = "Columns that are not read: 'class', 'notes'."
    assert message in data.definition("train").definition


def test_ids(tmp_path):
    rows = [ROW | {"id": id} for id in (0, "0a", 1.5)]
    data = own(tmp_path, {"train.jsonl": [*rows, ROW, ROW | {"id": ""}]})
    (draft,) = data.split("train")
    ids = [sample.id for sample in draft.samples]
    assert ids == ["0", "0a", "1.5", "train-4", "train-5"]


def linked(folder):
    """Write a folder with links to files in it and outside."""
    (folder / "inner").mkdir(parents=True)
    pictures()[0].save(folder / "inner/1.jpg")
    pictures()[0].save(folder.parent / "secret.jpg")
    os.symlink(folder.parent / "secret.jpg", folder / "link.jpg")
    os.symlink(folder.parent, folder / "up")
    os.symlink("inner/1.jpg", folder / "good.jpg")
    os.symlink("inner", folder / "within")


@pytest.mark.parametrize(
    "image",
    [
        "../secret.jpg",
        "{}/secret.jpg",
        "link.jpg",
        "up/secret.jpg",
        "/dev/null",
    ],
)
def test_pictures_outside_need_permission(image, tmp_path):
    root = tmp_path / "root"
    linked(root)
    rows = [ROW, ROW | {"image": image.format(tmp_path)}]
    data = own(root, {"train.jsonl": rows})
    with pytest.raises(ValueError, match="below its folder.*in row 2"):
        data.split("train")
    assert not data.check()[0].ok
    draft = own(root, {"train.jsonl": rows}, outside=True).split("train")[1]
    if image != "/dev/null":
        assert draft.read().images[0] == (tmp_path / "secret.jpg").read_bytes()


def test_links_that_stay_inside_are_followed(tmp_path):
    root = tmp_path / "root"
    linked(root)
    os.symlink(root, tmp_path / "another name")
    names = ["good.jpg", "within/1.jpg", str(tmp_path / "another name/0.jpg")]
    rows = [ROW | {"image": name} for name in names]
    data = own(tmp_path / "another name", {"train.jsonl": rows})
    keys = [draft.key for draft in data.split("train")]
    assert keys == ["good.jpg", "within/1.jpg", "0.jpg"]
    assert data.check()[0].ok


def test_invalid_utf_8_is_located(tmp_path):
    data = own(tmp_path, {"train.csv": "text,label\n" + "rain,wet\n" * 5000})
    with open(tmp_path / "train.csv", "ab") as file:
        file.write(b"sn\xf6w,wet\n")
    with pytest.raises(ValueError, match="UTF-8.*byte 0xf6 in line 5002"):
        data.split("train")


def test_memory_of_a_long_table(tmp_path):
    rows = "".join(f"it rained on day {i},wet\n" for i in range(5000))
    (tmp_path / "train.csv").write_text("text,label\n" + rows)
    data = open_dataset("own", tmp_path)
    tracemalloc.start()
    assert len(data.split("train")) == 5000
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    # As in docs/performance.md for a million records.
    assert most < 5000 * 500


def test_the_index_is_saved_rarely_for_many_shards(tmp_path, monkeypatch):
    saved = []
    monkeypatch.setattr(
        write, "_save_split", lambda *given: saved.append(given[-1]["shards"])
    )

    def run(jobs):
        for job in jobs:
            yield {"file": pathlib.Path(job.path).name, "left_out": []}

    record_rows.write(
        tmp_path, record_rows.made(1000), num_shards=1000, run=run
    )
    counts = [len(shards) for shards in saved]
    # A kill loses at most 2 % of the shards, and none of a few.
    assert counts[:50] == list(range(50)) and counts[-1] == 1000
    gaps = np.diff(counts)
    assert (gaps <= 1 + 0.03 * np.array(counts[:-1])).all()
    assert len(counts) < 250
