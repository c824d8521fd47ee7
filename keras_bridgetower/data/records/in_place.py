"""Indexes files of others in place: tar files of WebDataset, and Parquet."""

import concurrent.futures
import fnmatch
import hashlib
import io
import itertools
import re
import tarfile
import zlib

import numpy as np

from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.places import open_place
from keras_bridgetower.data.records.row_groups import RowGroup
from keras_bridgetower.files import sha256


def index_tars(
    folder,
    split,
    definition,
    pattern="*.tar",
    workers=4,
    max_bad_share=0.0,
    part=None,
):
    """Index tar files so that `open_records` reads them, without a copy.

    A sample consists of consecutive files with one name before the first dot: a
    picture and its caption, such as `0.jpg` and `0.txt`. Others, such as
    `0.json`, are ignored. All of the files are read once. Offsets and an
    `index.json` are written into the same folder. The same call continues after
    a kill, and reads only files that are new or changed since.

    Args:
        folder: path of the folder with the tar files, or its URL in an object
            store, from which each file is downloaded and then deleted here.
        split: str, name of the split.
        definition: str, a description of the split.
        pattern: str, the names of its tar files.
        workers: int, files that are read at a time.
        max_bad_share: float from 0 to 1, the share of the samples that may lack
            a picture or a caption. The index lists them.
        part: `(number, count)`, to index one of `count` parts of the files,
            from 0. Several machines may each index a part at the same time.
            When all have ended, the same call with None joins the parts to one
            index: it reads only files that are in no part.

    Returns:
        dict, the entry of the split in `index.json`, or in the index of the
        part, whose share of incomplete samples may be any.

    Raises:
        ValueError: no file has such a name, the folder has a data set of
            another task, a file is no uncompressed tar file, or too many
            samples are incomplete.
        StoreError: the store could not be read or written.

    Example:

    ```python
    index_tars("laion", "train", "Pairs of LAION.")
    stream = Stream(open_records("laion", "train"), 64, transform)
    ```

    On two machines:

    ```python
    for number in range(2):  # Each on another machine.
        index_tars("laion", "train", "Pairs of LAION.", part=(number, 2))
    index_tars("laion", "train", "Pairs of LAION.")  # Joins them.
    ```

    Source: WebDataset's documentation, "WebDataset Format".
    """
    return _index_files(
        *(folder, split, definition, pattern, workers, max_bad_share, part),
        columns=None,
    )


def index_parquet(
    folder,
    split,
    definition,
    image="image",
    text="text",
    pattern="*.parquet",
    workers=4,
    max_bad_share=0.0,
    part=None,
):
    """Index Parquet files so that `open_records` reads them, without a copy.

    A row has a picture and its texts. All of the files are read once. Offsets
    and an `index.json` are written into the same folder. The same call
    continues after a kill, and reads only files that are new or changed since.

    A stream reads whole row groups and takes each as a shard, so `window` of
    `Shuffled` counts row groups. Those of three windows stay in memory, 4 GiB
    at most.

    Args:
        folder: path of the folder with the files, whose names end in
            `.parquet`, or its URL in an object store, from which each file is
            downloaded and then deleted here.
        split: str, name of the split.
        definition: str, a description of the split.
        image: str, the column of picture files: bytes, or structs with `bytes`
            as in data sets of Hugging Face.
        text: str, the column of texts: strings, or lists of strings.
        pattern: str, the names of the files of the split.
        workers: int, files that are read at a time.
        max_bad_share: float from 0 to 1, the share of the rows that may lack a
            picture or a text. The index lists them. Files of img2dataset have
            a row without a picture for each failed download.
        part: as in `index_tars`.

    Returns:
        dict, the entry of the split in `index.json`.

    Raises:
        ImportError: pyarrow is not installed.
        ValueError: no file has such a name, the folder has a data set of
            another task, a file is no Parquet file or lacks a column, or too
            many rows are incomplete.

    Example:

    ```python
    index_parquet("cc3m", "train", "Pairs of CC3M.", image="jpg", text="txt")
    stream = Stream(open_records("cc3m", "train"), 64, transform)
    ```

    Source: img2dataset and Hugging Face's `datasets`, for the columns.
    """
    load_extra("pyarrow.parquet", "data")
    return _index_files(
        *(folder, split, definition, pattern, workers, max_bad_share, part),
        columns={"image": image, "text": text},
    )


def _index_files(
    folder, split, definition, pattern, workers, max_bad_share, part, columns
):
    """Write the offsets of files and an index of the split.

    Args:
        folder, split, definition, pattern, workers, max_bad_share, part: as in
            `index_tars`.
        columns: dict, those of Parquet files, which are read again if others
            are given; None for tar files.

    Returns:
        dict, the entry of the split in the index.
    """
    check_count("workers", workers)
    place = open_place(folder)
    found = {k: v for k, v in place.names().items() if "/" not in k}
    names = sorted(fnmatch.filter(found, pattern))
    if not names:
        raise ValueError(
            f"`folder` must have files {pattern!r}. Received: {str(folder)!r}"
        )
    of_part = rf"index\.{re.escape(split)}\.part-\d+-of-\d+\.json"
    parts = [name for name in sorted(found) if re.fullmatch(of_part, name)]
    task, labels = "captions", []
    known, written = {}, form.INDEX
    for index in (form.INDEX, *parts):
        splits = write.open_index(place, task, labels, index)["splits"]
        shards = splits.get(split, {"shards": ()})["shards"]
        known |= {shard["file"]: shard for shard in shards}
    if part is not None:
        if not isinstance(part, tuple) or len(part) != 2:
            raise ValueError(
                "`part` must be `(number, count)`, such as `(0, 8)`. "
                f"Received: part={part!r}"
            )
        number, count = part
        check_choice("part", number, range(count))
        names = names[number::count]
        written = f"index.{split}.part-{number:05}-of-{count:05}.json"

    def is_current(name):
        shard = known.get(name)
        is_same = shard and shard.get("columns") == columns
        return is_same and _has_offsets(place, found, shard)

    def index_file(name):
        with place.local_copy(name, found[name]) as path:
            return (
                _index_parquet(path, columns) if columns else _index_tar(path)
            )

    entry = {"definition": definition, "num_shards": len(names), "seed": 0}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        current = zip(names, pool.map(is_current, names), strict=True)
        done = {name: known[name] for name, is_kept in current if is_kept}
        shards = pool.map(index_file, [n for n in names if n not in done])
        told = (place, task, labels, split, entry, done, shards, lambda: None)
        write.save_each(*told, written)
    if part is None:
        total = sum(s["records"] + len(s["left_out"]) for s in done.values())
        write.check_left_out(split, done.values(), total, max_bad_share)
        place.remove(parts)
    return entry


def _has_offsets(place, found, shard):
    """Return True if a file is older than its offsets, which are whole."""
    if not write.has_files(found, shard):
        return False
    offsets = form.offsets_path(shard["file"]).name
    if place.modified(shard["file"]) > place.modified(offsets):
        return False
    return place.is_far or (
        sha256(place.path / offsets) == shard["offsets_sha256"]
    )


def _index_tar(path):
    """Write the offsets of a tar file, and return its entry in the index."""
    total, left_out = hashlib.sha256(), []

    def rows(file):
        for key, begin, end, reason in _find_samples(path):
            if reason:
                # Of a name that is not UTF-8, JSON would not take the key.
                key = key.encode(errors="replace").decode()
                left_out.append([key, reason])
                continue
            # What was left out may be of any size.
            for place in range(file.tell(), begin, 2**20):
                total.update(file.read(min(begin - place, 2**20)))
            data = file.read(end - begin)
            total.update(data)
            yield begin, len(data), 1, zlib.crc32(data)
        while data := file.read(2**20):
            total.update(data)

    try:
        with open(path, "rb") as file:
            # A list would take ten times as much memory.
            offsets = np.fromiter(rows(file), form.OFFSETS)
    except (tarfile.TarError, ValueError, LookupError) as error:
        raise ValueError(
            f"{path} must be a tar file that is not compressed. "
            f"Received: {error}"
        ) from error
    sources = {form.OF_TARS: len(offsets)}
    found = dict(sources=sources, plan="", left_out=left_out)
    return write.with_offsets(path, offsets, total.hexdigest(), **found)


class _BoundedReads(io.FileIO):
    """A file whose holes cannot fill the memory: headers name any size."""

    def read(self, size=-1):
        if not 0 <= size <= form.LARGEST_SAMPLE:
            raise ValueError(f"a part of {size:,} bytes")
        return super().read(size)


def _find_samples(path):
    """Yield the key, begin and end of samples, and why they are left out."""
    with (
        _BoundedReads(path) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        for key, files in itertools.groupby(_files(tar), lambda file: file[0]):
            kinds, begin = {}, None
            for _, kind, end, member in files:
                begin = member.offset if begin is None else begin
                kinds[kind] = ""
                if member.issparse() or end - begin > form.LARGEST_SAMPLE:
                    kinds[kind] = f"its {kind} is sparse or too large"
                elif kind in form.PARTS["caption"]:
                    text = tar.extractfile(member).read()
                    try:
                        f"{key}{text.decode()}".encode()
                    except UnicodeError:
                        kinds[kind] = f"its {kind} or its name is not UTF-8"
            reasons = [*filter(None, kinds.values())]
            if missing := [
                k for k, some in form.PARTS.items() if not kinds.keys() & some
            ]:
                reasons.append(f"it has no {' and no '.join(missing)}")
            yield key, begin, end, ", ".join(reasons)


def _files(tar):
    """Yield the key, the kind and the end of each file, and its member."""
    for member in tar:
        # Otherwise all would stay in memory.
        tar.members.clear()
        key, kind = form.key_and_kind(member.name)
        end = form.end_of_member(tar, member)
        if member.isfile():
            yield key, kind, end, member


def _index_parquet(path, columns):
    """Write the offsets of a file, and return its entry in the index."""
    parquet = load_extra("pyarrow.parquet", "data")
    rows, groups, left_out = [], [], []
    try:
        if path.suffix != ".parquet":
            raise ValueError("its name must end in '.parquet'")
        digest = sha256(path)
        with open(path, "rb") as file:
            count = parquet.read_metadata(path).num_row_groups
            for number in range(count):
                group = RowGroup(file, path.name, columns, number)
                found = _read_rows(group, left_out)
                sums = [sum(row[i] for row in found) for i in (2, 1)]
                groups.append([len(found), *sums])
                rows += found
    except (OSError, ValueError) as error:
        raise ValueError(
            f"{path} must be a whole Parquet file with pictures and texts. "
            f"Received: {error!s:.600}"
        ) from error
    return write.with_offsets(
        *(path, rows, digest),
        sources={form.OF_PARQUET: sum(samples for _, samples, _ in groups)},
        plan="",
        left_out=left_out,
        columns=columns,
        groups=groups,
    )


def _read_rows(group, left_out):
    """Return the offsets of the rows of a group, and list incomplete rows."""
    rows = []
    for row in range(len(group)):
        try:
            parts = group.parts(row)
            missing = [name for name, value in parts.items() if not value]
            reason = missing and f"it has no {' and no '.join(missing)}"
        except UnicodeError:
            reason = "its text is not UTF-8"
        if reason:
            left_out.append([group.key(row), reason])
            continue
        data, samples = group.encoded(row), len(parts["text"])
        rows.append((row, len(data), samples, zlib.crc32(data)))
    return rows
