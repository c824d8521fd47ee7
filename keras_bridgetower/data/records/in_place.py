"""Indexes files of others in place: one entry in `index.json` for each."""

import concurrent.futures
import fnmatch

from keras_bridgetower.checks import check_count
from keras_bridgetower.data.records import write
from keras_bridgetower.data.records.outputs import open_output


def index_files(
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
    output = open_output(folder)
    names = sorted(fnmatch.filter(output.names(), pattern))
    if not names:
        raise ValueError(
            f"`folder` must have files {pattern!r}. Received: {str(folder)!r}"
        )
    task, labels = "captions", []
    before = write.open_index(output, task, labels)["splits"].get(split)
    known = {shard["file"]: shard for shard in (before or {}).get("shards", ())}
    done = {}

    def shard_of(name):
        shard = known.get(name)
        if (
            shard
            and kind.items() <= shard.items()
            and output.has_offsets(shard)
        ):
            return shard
        with output.read(name) as path:
            return index_file(path)

    entry = {"definition": definition, "num_shards": len(names), "seed": 0}

    def save():
        entry["shards"] = [done[name] for name in sorted(done)]
        write.save_split(output, task, labels, split, entry)

    saved = 0
    with concurrent.futures.ThreadPoolExecutor(workers) as pool:
        for shard in pool.map(shard_of, names):
            done[shard["file"]] = shard
            if len(done) * (1 - write.UNSAVED_SHARE) >= saved:
                save()
                saved = len(done)
    total = sum(s["records"] + len(s["left_out"]) for s in done.values())
    write.check_left_out(split, done.values(), total, max_bad_share)
    save()
    return entry
