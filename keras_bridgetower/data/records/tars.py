"""Indexes tar files of WebDataset, such as those of img2dataset, in place."""

import hashlib
import tarfile
import zlib

from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.in_place import index_files

_BLOCK = 512  # Bytes, of which all parts of a tar file are multiples.


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
    return index_files(
        *(folder, split, definition, pattern, workers, max_bad_share),
        index_file=_index_tar,
        kind={},
    )


def _index_tar(path):
    """Write the offsets of a tar file, and return its entry in the index."""
    ranges, left_out = _samples_of(path)
    total, rows = hashlib.sha256(), []
    with open(path, "rb") as file:
        for begin, end in ranges:
            total.update(file.read(begin - file.tell()))
            data = file.read(end - begin)
            total.update(data)
            rows.append((begin, len(data), 1, zlib.crc32(data)))
        while data := file.read(2**20):
            total.update(data)
    found = dict(sources={form.OF_TARS: len(rows)}, plan="", left_out=left_out)
    return write.with_offsets(path, rows, total.hexdigest(), **found)


def _samples_of(path):
    """Return where samples begin and end, and which are incomplete."""
    found, ranges, left_out = [], [], []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                blocks = -(-member.size // _BLOCK)
                end = member.offset_data + blocks * _BLOCK
                key, kind = form.key_and_kind(member.name)
                if not found or found[-1][0] != key:
                    found.append([key, member.offset, end, set()])
                found[-1][2] = end
                found[-1][3].add(kind)
    except tarfile.TarError as error:
        raise ValueError(
            f"{path} must be a tar file that is not compressed. "
            f"Received: {error}"
        ) from error
    for key, begin, end, kinds in found:
        missing = [
            name for name, some in form.PARTS.items() if not kinds & some
        ]
        if missing:
            left_out.append([key, f"it has no {' and no '.join(missing)}"])
        else:
            ranges.append((begin, end))
    return ranges, left_out
