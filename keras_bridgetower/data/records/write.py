"""Writes records to shards, and continues where it was interrupted."""

import concurrent.futures
import contextlib
import dataclasses
import hashlib
import math
import multiprocessing
import os
import pathlib
import threading
import zlib
from concurrent.futures.process import BrokenProcessPool

import numpy as np
import tensorflow as tf

from keras_bridgetower.checks import check_at_most
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records.checks import check_images
from keras_bridgetower.data.records.checks import check_left_out
from keras_bridgetower.data.records.checks import check_records
from keras_bridgetower.data.records.index import open_index
from keras_bridgetower.data.records.index import remove_others
from keras_bridgetower.data.records.index import save_split
from keras_bridgetower.data.records.read import describe_damage
from keras_bridgetower.data.written import written
from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import move_into_place
from keras_bridgetower.files import sha256
from keras_bridgetower.files import write_atomically

RECORDS_PER_SHARD = 1000
# The index is saved each time this share of the shards was written. After a
# kill at most so many are written again. Saving it after each of thousands of
# shards took most of the time.
UNSAVED_SHARE = 0.02


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """All that a process needs to write one shard.

    Args:
        path: str, path of the shard's file.
        records: tuple of `Record` or `Draft`, those of this shard.
        plan: str, a hash of the records as they are before pictures are
            read.
    """

    path: str
    records: tuple
    plan: str


def write_shards(
    folder,
    split,
    records,
    *,
    task,
    labels=(),
    definition,
    num_shards=None,
    seed=0,
    max_bad_share=0.0,
    run=None,
    on_shard=None,
):
    """Write a split of a data set.

    Records are shuffled by the seed. Each shard is written completely or not
    at all. The same call continues after a kill: an existing shard is kept if
    it was written from the same records and its checksum is right. It is
    written again if a picture that was left out can be read now. In the end,
    shards of an earlier call with another `num_shards` are removed. Several
    processes may write one split each.

    Args:
        folder: path of the data set; it is made if absent.
        split: str, name of the split.
        records: list of `Record` or `Draft`. The pictures of a `Draft` are
            read by the process that writes it.
        task: one of `TASKS`.
        labels: list of str. `Sample.labels` are positions in it.
        definition: str, a description of the split.
        num_shards: int, number of files; by default one for each 1,000
            records.
        seed: int, seed of the order.
        max_bad_share: float from 0 to 1, the share of records that may be
            left out because a picture cannot be read. The index lists them
            with reasons.
        run: function that takes a list of `ShardJob` and returns an iterator
            over the results of `write_shard`, in any order. By default shards
            are written one by one in this process; `in_processes(4)` uses
            four processes.
        on_shard: function that gets the number of finished shards and that
            of all.

    Returns:
        dict, the entry of the split in `index.json`.

    Raises:
        ValueError: the folder is a link, it holds another data set, there are
            no records, labels are not in the list, ids or keys occur twice,
            or too many pictures cannot be read.

    Example:

    ```python
    from keras_bridgetower.data.records.format import Record, Sample

    record = Record("0", (), (Sample("0", "It rained.", (1,)),), "own")
    write_shards(
        "weather",
        "train",
        [record],
        task="text_classification",
        labels=["dry", "wet"],
        definition="All rows.",
    )
    ```
    """
    folder = pathlib.Path(folder)
    records = list(records)
    labels = list(labels)
    check_records(split, records, task, labels)
    if num_shards is None:
        num_shards = math.ceil(len(records) / RECORDS_PER_SHARD)
    check_at_most("num_shards", num_shards, len(records), "records")
    num_shards = int(num_shards)
    check_no_link(folder, "`folder`")
    folder.mkdir(parents=True, exist_ok=True)
    index = open_index(folder, task, labels)
    order = np.random.default_rng(seed).permutation(len(records))
    jobs = {}
    for number, rows in enumerate(np.array_split(order, num_shards)):
        name = form.shard_name(split, number, num_shards)
        part = tuple(records[row] for row in rows)
        jobs[name] = ShardJob(str(folder / name), part, _hash_of(part))
    found = index["splits"].get(split, {"shards": []})["shards"]
    done = {
        shard["file"]: shard
        for shard in found
        if shard["file"] in jobs
        and shard["plan"] == jobs[shard["file"]].plan
        and not describe_damage(folder, shard)
        and not _can_be_completed(jobs[shard["file"]], shard)
    }
    on_shard = on_shard or (lambda done, total: None)
    on_shard(len(done), num_shards)
    entry = {"definition": definition, "num_shards": num_shards, "seed": seed}

    def save():
        entry["shards"] = [done[name] for name in sorted(done)]
        save_split(folder, task, labels, split, entry)

    save()
    saved = len(done)
    left = [job for name, job in jobs.items() if name not in done]
    for shard in (run or one_by_one)(left):
        done[shard["file"]] = shard
        check_left_out(split, done.values(), len(records), max_bad_share)
        if len(done) * (1 - UNSAVED_SHARE) >= saved:
            save()
            saved = len(done)
        on_shard(len(done), num_shards)
    save()
    check_left_out(split, done.values(), len(records), max_bad_share)
    remove_others(folder, split, entry)
    return entry


def write_shard(job):
    """Write one shard and its offsets.

    Args:
        job: `ShardJob`.

    Returns:
        dict, the entry of the shard in the index: file, records, samples,
        sources, bytes, checksums, and the records left out with reasons.
    """
    rows, sources, left_out, end = [], {}, [], 0
    part = f"{job.path}.part"
    check_no_link(part, "A file to write")
    with tf.io.TFRecordWriter(part) as writer:
        for draft in job.records:
            try:
                record = _read_checked(draft)
            except (OSError, ValueError) as error:
                left_out.append([draft.key, str(error)])
                continue
            data = form.encode(record)
            writer.write(data)
            samples = len(record.samples)
            begin = end + form.FRAME_HEAD
            rows.append((begin, len(data), samples, zlib.crc32(data)))
            end = begin + len(data) + form.FRAME_TAIL
            sources[record.source] = sources.get(record.source, 0) + samples
    offsets = np.array(rows, form.OFFSETS)
    write_atomically(
        form.offsets_path(job.path), lambda file: np.save(file, offsets)
    )
    move_into_place(part, job.path)
    return {
        "file": os.path.basename(job.path),
        "schema_version": form.SCHEMA_VERSION,
        "records": len(rows),
        "samples": int(offsets["samples"].sum()),
        "sources": sources,
        "bytes": os.path.getsize(job.path),
        "sha256": sha256(job.path),
        "offsets_sha256": sha256(form.offsets_path(job.path)),
        "plan": job.plan,
        "left_out": left_out,
    }


def one_by_one(jobs):
    """Write shards in this process."""
    return map(write_shard, jobs)


def in_processes(workers):
    """Make a function that writes shards in several processes."""

    def run(jobs):
        count = min(workers, len(jobs))
        if count <= 1:
            yield from one_by_one(jobs)
            return
        # TensorFlow's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            count, context, _end_with_parent
        ) as pool:
            waiting = [pool.submit(write_shard, job) for job in jobs]
            try:
                for future in concurrent.futures.as_completed(waiting):
                    yield future.result()
            except BrokenProcessPool as error:
                raise RuntimeError(
                    "A process that wrote shards was killed, perhaps for want "
                    "of memory. The same call continues. Received: "
                    f"workers={workers}"
                ) from error
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    return run


def _read_checked(draft):
    record = draft.read()
    check_images(record.images)
    return record


def _can_be_completed(job, shard):
    """Whether a record that a shard left out can be read now."""
    left_out = {key for key, _ in shard["left_out"]}
    for draft in job.records:
        if draft.key in left_out:
            with contextlib.suppress(OSError, ValueError):
                _read_checked(draft)
                return True
    return False


def _hash_of(records):
    total = hashlib.sha256()
    for record in records:
        total.update(written(record).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _end_with_parent():
    """End this process if its parent is killed, instead of waiting forever."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
