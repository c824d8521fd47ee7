"""Records to shards: atomic, continued after a kill, the same for a seed."""

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

from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records.checks import check_images
from keras_bridgetower.data.records.checks import check_left_out
from keras_bridgetower.data.records.checks import check_records
from keras_bridgetower.data.records.index import open_index
from keras_bridgetower.data.records.index import remove_others
from keras_bridgetower.data.records.index import save_split
from keras_bridgetower.data.records.read import damage
from keras_bridgetower.data.written import written
from keras_bridgetower.files import move_into_place
from keras_bridgetower.files import sha256
from keras_bridgetower.files import write_atomically

RECORDS_PER_SHARD = 1000
# How many of the shards may be missing in the index after a kill, and are
# written again. To save it after each of thousands took most of the time.
UNSAVED_SHARE = 0.02


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """What one process needs to write one shard.

    Args:
        path: str, the shard's file.
        records: what `write_shards` takes, those of this shard.
        plan: str, a sum over what the records are before pictures are read.
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

    Records are shuffled by the seed. A shard is there whole or not at all;
    one that is there, was written from the same records, and whose sum
    agrees is kept, so the same call continues after a kill. It is written
    again where a picture that was left out can be read by now. Once all are
    there, those of another number of shards are removed. Several processes
    may write one split each.

    Args:
        folder: path of the data set, made if absent.
        split: str, name of the split.
        records: list of `Record`, or of `Draft`, whose pictures are read by
            the process that writes them.
        task: one of `TASKS`.
        labels: list of str; the ids of labels are places in it.
        definition: str, in words what the split is.
        num_shards: int, files to write, by default one for 1,000 records.
        seed: int, for the order.
        max_bad_share: float in 0..1, how large a share of records may be
            left out because a picture cannot be read. They stand in the
            index with the reason.
        run: function from a list of `ShardJob` to an iterator over what
            `write_shard` gives for each, in any order. By default they are
            written here, one by one; `in_processes(4)` uses four processes.
        on_shard: function of the numbers of shards done and in all.

    Returns:
        dict, the split's part of `index.json`.

    Raises:
        ValueError: the folder holds another data set, labels outside the
            list, ids or keys that occur twice, no records, too many pictures
            that cannot be read.

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
    num_shards = num_shards or math.ceil(len(records) / RECORDS_PER_SHARD)
    if not 1 <= num_shards <= len(records):
        raise ValueError(
            "`num_shards` must be from 1 to the number of records, "
            f"{len(records)}. Received: num_shards={num_shards}"
        )
    folder.mkdir(parents=True, exist_ok=True)
    index = open_index(folder, task, labels)
    order = np.random.default_rng(seed).permutation(len(records))
    jobs = {}
    for number, rows in enumerate(np.array_split(order, num_shards)):
        name = form.shard_name(split, number, num_shards)
        part = tuple(records[row] for row in rows)
        jobs[name] = ShardJob(str(folder / name), part, _plan(part))
    found = index["splits"].get(split, {"shards": []})["shards"]
    done = {
        shard["file"]: shard
        for shard in found
        if shard["file"] in jobs
        and shard["plan"] == jobs[shard["file"]].plan
        and not damage(folder, shard)
        and not _mended(jobs[shard["file"]], shard)
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
        dict, the shard's row in the index: file, records, samples, sources,
        bytes, sums, and the records left out with the reason.
    """
    rows, sources, left_out, end = [], {}, [], 0
    part = f"{job.path}.part"
    with tf.io.TFRecordWriter(part) as writer:
        for draft in job.records:
            try:
                record = _read(draft)
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
    """Write shards in a number of processes, each one shard at a time."""

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


def _read(draft):
    record = draft.read()
    check_images(record.images)
    return record


def _mended(job, shard):
    """Whether a record that a shard left out can be read by now."""
    left_out = {key for key, _ in shard["left_out"]}
    for draft in job.records:
        if draft.key in left_out:
            with contextlib.suppress(OSError, ValueError):
                _read(draft)
                return True
    return False


def _plan(records):
    total = hashlib.sha256()
    for record in records:
        total.update(written(record).encode("utf-8", "surrogatepass"))
    return total.hexdigest()


def _end_with_parent():
    """A process whose parent was killed must not wait for it forever."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
