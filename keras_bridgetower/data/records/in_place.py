"""Indexes files of others in place: tar files of WebDataset, and Parquet."""

import concurrent.futures
import fnmatch
import hashlib
import io
import tarfile
import zlib

from keras_bridgetower.checks import check_count
from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.places import open_place
from keras_bridgetower.data.records.row_groups import RowGroup
from keras_bridgetower.files import sha256


def index_tars(
    folder, split, definition, pattern="*.tar", workers=4, max_bad_share=0.0
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

    Returns:
        dict, the entry of the split in `index.json`.

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

    Source: WebDataset's documentation, "WebDataset Format".
    """
    return _index_files(
        *(folder, split, definition, pattern, workers, max_bad_share),
        index_file=_index_tar,
        kind={},
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
    columns = {"image": image, "text": text}
    return _index_files(
        *(folder, split, definition, pattern, workers, max_bad_share),
        index_file=lambda path: _index_parquet(path, columns),
        kind={"columns": columns},
    )


def _index_files(
    folder, split, definition, pattern, workers, max_bad_share, index_file, kind
):
    """Write the offsets of files and the `index.json` of their folder.

    Args:
        folder, split, definition, pattern, workers, max_bad_share: as in
            `index_tars`.
        index_file: function of a path, which writes the offsets of the file
            and returns its entry in the index.
        kind: dict, the part of that entry that depends on arguments. A file is
            read again if it differs.

    Returns:
        dict, the entry of the split in `index.json`.
    """
    check_count("workers", workers)
    place = open_place(folder)
    found = {k: v for k, v in place.names().items() if "/" not in k}
    names = sorted(fnmatch.filter(found, pattern))
    if not names:
        raise ValueError(
            f"`folder` must have files {pattern!r}. Received: {str(folder)!r}"
        )
    task, labels = "captions", []
    before = write.open_index(place, task, labels)["splits"].get(split)
    known = {shard["file"]: shard for shard in (before or {}).get("shards", ())}

    def is_current(name):
        shard = known.get(name)
        is_same = shard and kind.items() <= shard.items()
        return is_same and _has_offsets(place, found, shard)

    def index(name):
        with place.local_copy(name, found[name]) as path:
            return index_file(path)

    entry = {"definition": definition, "num_shards": len(names), "seed": 0}
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        current = zip(names, pool.map(is_current, names), strict=True)
        done = {name: known[name] for name, is_kept in current if is_kept}
        shards = pool.map(index, [name for name in names if name not in done])
        told = (place, task, labels, split, entry, done, shards, lambda: None)
        write.save_each(*told)
    total = sum(s["records"] + len(s["left_out"]) for s in done.values())
    write.check_left_out(split, done.values(), total, max_bad_share)
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
    try:
        ranges, left_out = _find_samples(path)
    except (tarfile.TarError, ValueError, LookupError) as error:
        raise ValueError(
            f"{path} must be a tar file that is not compressed. "
            f"Received: {error}"
        ) from error
    total, rows = hashlib.sha256(), []
    with open(path, "rb") as file:
        for begin, end in ranges:
            # What was left out may be of any size.
            for place in range(file.tell(), begin, 2**20):
                total.update(file.read(min(begin - place, 2**20)))
            data = file.read(end - begin)
            total.update(data)
            rows.append((begin, len(data), 1, zlib.crc32(data)))
        while data := file.read(2**20):
            total.update(data)
    found = dict(sources={form.OF_TARS: len(rows)}, plan="", left_out=left_out)
    return write.with_offsets(path, rows, total.hexdigest(), **found)


class _BoundedReads(io.FileIO):
    """A file whose holes cannot fill the memory: headers name any size."""

    def read(self, size=-1):
        if not 0 <= size <= form.LARGEST_SAMPLE:
            raise ValueError(f"a part of {size:,} bytes")
        return super().read(size)


def _find_samples(path):
    """Return where samples begin and end, and which are left out."""
    found, ranges, left_out = [], [], []
    with (
        _BoundedReads(path) as file,
        tarfile.open(fileobj=file, mode="r:") as tar,
    ):
        for member in tar:
            key, kind = form.key_and_kind(member.name)
            end = form.end_of_member(tar, member)
            if not member.isfile():
                continue
            if not found or found[-1][0] != key:
                found.append([key, member.offset, end, {}])
            _, begin, _, kinds = found[-1]
            found[-1][2] = end
            kinds[kind] = ""
            if member.issparse() or end - begin > form.LARGEST_SAMPLE:
                kinds[kind] = f"its {kind} is sparse or too large"
            elif kind in form.PARTS["caption"]:
                try:
                    f"{key}{tar.extractfile(member).read().decode()}".encode()
                except UnicodeError:
                    kinds[kind] = f"its {kind} or its name is not UTF-8"
    for key, begin, end, kinds in found:
        reasons = [*filter(None, kinds.values())]
        if missing := [
            k for k, some in form.PARTS.items() if not kinds.keys() & some
        ]:
            reasons.append(f"it has no {' and no '.join(missing)}")
        if reasons:
            # Of a name that is not UTF-8, JSON would not take the key.
            key = key.encode(errors="replace").decode()
            left_out.append([key, ", ".join(reasons)])
        else:
            ranges.append((begin, end))
    return ranges, left_out


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
