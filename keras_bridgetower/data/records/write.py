"""Writes records to shards, and continues after an interruption."""

import concurrent.futures
import contextlib
import dataclasses
import functools
import hashlib
import io
import itertools
import json
import multiprocessing
import os
import pathlib
import re
import tempfile
import threading
import zlib

import numpy as np
import tensorflow as tf

from keras_bridgetower import files
from keras_bridgetower import object_stores
from keras_bridgetower.checks import check_at_most
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import load_extra
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import shuffled
from keras_bridgetower.data.records import usual_shards
from keras_bridgetower.data.records.places import open_place
from keras_bridgetower.data.records.read import describe_damage
from keras_bridgetower.preprocessing import images

# The index is saved each time this share of the shards was written, and a kill
# loses at most that share. Saving it after each of thousands of shards would
# take most of the time.
UNSAVED_SHARE = 0.02


@dataclasses.dataclass(frozen=True)
class ShardJob:
    """The input of `write_shard`.

    Args:
        path: str, path or URL of the shard's file.
        rows: path of the file of `shuffled.written`.
        start, stop: ints, the places of the shard's records in it.
    """

    path: str
    rows: pathlib.Path
    start: int
    stop: int

    def records(self):
        """Yield the shard's records, each a `Record` or `Draft`."""
        return shuffled.read(self.rows, self.start, self.stop)

    def plan(self):
        """Return a hash of the records before their pictures are read."""
        total = hashlib.sha256()
        for record in self.records():
            total.update(form.written(record).encode("utf-8", "surrogatepass"))
        return total.hexdigest()


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
    at all. The same call continues after a kill: a shard is kept if it was
    written from the same records, its checksum is right (in a store its size:
    it is not read), and pictures that it left out still cannot be read. At the
    end, shards of an earlier call with another `num_shards` are removed.
    Several processes may write one split each.

    Records are shuffled on the disk, so memory does not grow with their number.
    The folder, or for a store `TMPDIR`, needs room for what `records` yields,
    and `TMPDIR` for the ids.

    Args:
        folder: path of the data set, created if it does not exist, or its URL
            in an object store, such as `"s3://bucket/data"`. A store has no
            lock: its splits must be written one after the other.
        split: str, name of the split.
        records: iterable of `Record` or `Draft`, such as a generator. The
            pictures of a `Draft` are read by the process that writes it.
        task: one of `TASKS`.
        labels: list of str. `Sample.labels` are positions in it.
        definition: str, a description of the split.
        num_shards: int, number of files. By default one per 1,000 records, at
            most 20,000.
        seed: int, seed of the order.
        max_bad_share: float from 0 to 1, the share of records that may be
            left out because a picture cannot be read. The index lists them
            with reasons.
        run: function from a list of `ShardJob` to an iterator over the results
            of `write_shard`, in any order. By default shards are written one
            by one in this process; `in_processes(4)` uses four processes.
        on_shard: function of the number of finished shards and of all shards.

    Returns:
        dict, the entry of the split in `index.json`.

    Raises:
        ValueError: the folder is a link or has another data set, there are
            no records, labels are not in the list, ids or keys are repeated,
            or too many pictures cannot be read.
        StoreError: the store could not be written.

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
    check_choice("task", task, form.TASKS)
    labels = list(labels)
    place = open_place(folder)
    place.create()
    before = open_index(place, task, labels)["splits"].get(split)
    with shuffled.written(place, split, records, labels, seed) as (rows, count):
        num_shards = usual_shards(count) if num_shards is None else num_shards
        check_at_most("num_shards", num_shards, count, "records")
        num_shards = int(num_shards)
        least, more = divmod(count, num_shards)
        ends = [n * least + min(n, more) for n in range(num_shards + 1)]
        jobs = {}
        for number, part in enumerate(itertools.pairwise(ends)):
            name = form.shard_name(split, number, num_shards)
            jobs[name] = ShardJob(f"{folder}/{name}", rows, *part)
        found = place.names()
        done = {
            shard["file"]: shard
            for shard in (before["shards"] if before else ())
            if _is_finished(place, found, shard, jobs.get(shard["file"]))
        }

        def told():
            check_left_out(split, done.values(), count, max_bad_share)
            if on_shard:
                on_shard(len(done), num_shards)

        told()
        entry = dict(definition=definition, num_shards=num_shards, seed=seed)
        left = [job for name, job in jobs.items() if name not in done]
        shards = (run or functools.partial(map, write_shard))(left)
        save_each(place, task, labels, split, entry, done, shards, told)
    _remove_others(place, split, entry)
    return entry


def write_shard(job):
    """Write one shard and its offsets.

    Args:
        job: `ShardJob`.

    Returns:
        dict, the entry of the shard in the index: file, records, samples,
        sources, bytes, checksums, and the left-out records with reasons.
    """
    folder, _, name = job.path.rpartition("/")
    with open_place(folder).local_copy(name) as path:
        return _write_shard(path, job)


def _write_shard(path, job):
    rows, sources, left_out, end = [], {}, [], 0
    part = f"{path}.part"
    files.check_no_link(part, "A file to write")
    with tf.io.TFRecordWriter(part) as writer:
        for draft in job.records():
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
    files.move_into_place(part, path)
    found = dict(sources=sources, plan=job.plan(), left_out=left_out)
    return with_offsets(path, rows, files.sha256(path), **found)


def with_offsets(path, rows, digest, **found):
    """Write the offsets of a shard, and return its entry in the index.

    Args:
        path: path of the finished shard.
        rows: array of `form.OFFSETS`, or a list of tuples of its values.
        digest: str, the SHA-256 of the shard.
        **found: `sources`, `plan` and `left_out`.
    """
    offsets = np.asarray(rows, form.OFFSETS)
    offsets_file = form.offsets_path(path)
    files.write_atomically(offsets_file, lambda file: np.save(file, offsets))
    return {
        "file": os.path.basename(path),
        "schema_version": form.SCHEMA_VERSION,
        "records": len(rows),
        "samples": int(offsets["samples"].sum()),
        "bytes": os.path.getsize(path),
        "sha256": digest,
        "offsets_sha256": files.sha256(offsets_file),
        **found,
    }


def in_processes(workers):
    """Return a function that writes shards in several processes."""

    def run(jobs):
        count = min(workers, len(jobs))
        if count <= 1:
            yield from map(write_shard, jobs)
            return
        # TensorFlow's threads do not survive a fork.
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(
            count, context, _end_with_parent
        ) as pool:
            # After an error it cancels those that have not begun.
            yield from pool.map(write_shard, jobs)

    return run


def on_beam(runner="DirectRunner", **options):
    """Return a function that writes shards by a pipeline of Apache Beam.

    The folder of the data set, which must be no URL, and the pictures must
    have the same paths on all machines.

    Args:
        runner: str, the name of a Beam runner.
        **options: options of `PipelineOptions`.

    Returns:
        function, for the argument `run` of `write_shards`.

    Raises:
        ImportError: Beam is not installed.

    Source: Apache Beam, programming guide.
    """
    beam = load_extra("apache_beam", "beam")
    settings = load_extra("apache_beam.options.pipeline_options", "beam")

    def run(jobs):
        if not jobs:
            return
        if object_stores.is_url(jobs[0].path):
            raise ValueError(
                "With `on_beam`, `folder` must be a folder that all machines "
                f"see. Received: {object_stores.hide(jobs[0].path)!r}"
            )
        # Workers return their parts of the index through files.
        folder = pathlib.Path(jobs[0].path).parent
        with tempfile.TemporaryDirectory(prefix=".beam-", dir=folder) as rows:
            flags = settings.PipelineOptions(runner=runner, **options)
            with beam.Pipeline(options=flags) as pipeline:
                (
                    pipeline
                    | beam.Create(jobs)
                    # Without this step, one machine would write all shards.
                    | beam.Reshuffle()
                    | beam.Map(write_shard)
                    | beam.Map(json.dumps)
                    | beam.io.WriteToText(f"{rows}/rows")
                )
            for path in sorted(pathlib.Path(rows).glob("rows*")):
                for line in path.read_text(encoding="utf-8").splitlines():
                    yield json.loads(line)

    return run


def check_left_out(split, shards, total, max_bad_share):
    left_out = [row for shard in shards for row in shard["left_out"]]
    if len(left_out) > max_bad_share * total:
        key, reason = left_out[0]
        raise ValueError(
            f"{len(left_out)} of {total} records of split {split!r} cannot be "
            f"read; {max_bad_share=} allows fewer. The first: {key}: {reason}"
        )


def open_index(place, task, labels, name=form.INDEX):
    """Read the index of a `Folder` or `ShardStore`, or return a new one."""
    index = {
        "schema_version": form.SCHEMA_VERSION,
        "task": task,
        "labels": labels,
        "splits": {},
    }
    if name in place.names():
        index = form.load_index(place, name)
    if (index["task"], index["labels"]) != (task, labels):
        raise ValueError(
            "All splits of a data set have one task and one list of labels. "
            f"Received: {task=}, {labels=!s:.99}, for {index['task']!r}"
        )
    return index


def save_each(
    place, task, labels, split, entry, done, shards, told, name=form.INDEX
):
    """Update a split in the index while its shards are finished.

    Args:
        place: `Folder` or `ShardStore`, whose index other processes may
            write too.
        task, labels, split: as in `write_shards`.
        entry: dict, the entry of the split, which gets its `shards`.
        done: dict from names to the shards that were there before.
        shards: iterator over the others as they are finished.
        told: function that is called after each.
        name: str, the file of the index.
    """

    def save():
        entry["shards"] = [done[name] for name in sorted(done)]
        with place.write_lock(form.INDEX):
            index = open_index(place, task, labels, name)
            index["splits"][split] = entry
            text = files.checksummed(index)
            place.write(name, text.encode())

    save()
    saved = len(done)
    for shard in shards:
        done[shard["file"]] = shard
        if len(done) * (1 - UNSAVED_SHARE) >= saved:
            save()
            saved = len(done)
        told()
    save()


def _remove_others(place, split, entry):
    """Remove the shards of a split that its entry in the index lacks."""
    named = {shard["file"] for shard in entry["shards"]}
    shard = re.compile(
        rf"({re.escape(split)}-\d{{5,}}-of-\d{{5,}})"
        r"(\.tfrecord|\.offsets\.npy)(\.part)?"
    )
    found = filter(None, map(shard.fullmatch, place.names()))
    old = [m[0] for m in found if f"{m[1]}.tfrecord" not in named]
    place.remove(old)


def has_files(found, shard):
    """Return True if a listing has the files of a shard, by name and size."""
    offsets = form.offsets_path(shard["file"]).name
    return found.get(shard["file"]) == shard["bytes"] and offsets in found


def _is_finished(place, found, shard, job):
    """Return True if a written shard is what its job would write."""
    if job is None or not has_files(found, shard):
        return False
    if shard["plan"] != job.plan():
        return False
    # A store would have to send all of its bytes.
    if not place.is_far and describe_damage(place, shard):
        return False
    left_out = {key for key, _ in shard["left_out"]}
    for draft in job.records():
        if draft.key in left_out:
            with contextlib.suppress(OSError, ValueError):
                _read_checked(draft)
                # What was left out can be read now.
                return False
    return True


def _read_checked(draft):
    """Read a record, and raise if a stream could not open its pictures.

    Only headers are checked. Decoding all pixels would take a hundred times as
    long.
    """
    record = draft.read()
    for image in record.images:
        try:
            images.check_head(io.BytesIO(image), "picture")
        # On damaged files Pillow raises errors of many types.
        except Exception as error:
            raise ValueError(
                f"a picture of {len(image)} bytes, {image[:16]!r}..., cannot "
                f"be opened: {form.written_without_addresses(error)}"
            ) from error
    return record


def _end_with_parent():
    """End this process if its parent is killed, instead of waiting forever."""

    def wait():
        multiprocessing.parent_process().join()
        os._exit(1)

    threading.Thread(target=wait, daemon=True).start()
