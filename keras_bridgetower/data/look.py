"""What a built data set holds: counts, and a picture of some samples."""

import numpy as np

from keras_bridgetower.data.datasets.sample_sheet import sample_sheet
from keras_bridgetower.data.records import format
from keras_bridgetower.data.records import read
from keras_bridgetower.files import check_no_link


def contents(folder, verify=False):
    """What a data set of records holds.

    Args:
        folder: path of the data set.
        verify: bool, whether to read all of it and compare it with its sums.

    Returns:
        dict of `task`, `labels` (their number), `splits` (a dict of counts
        and words for each) and `damaged` (str for each damaged shard).

    Raises:
        ValueError: no data set, or a damaged index.
    """
    index = format.read_index(folder)
    splits, damaged = {}, {}
    for name in index["splits"]:
        reader = read.open_records(folder, name)
        splits[name] = {
            "records": reader.num_records,
            "samples": reader.num_samples,
            "shards": len(reader.shards),
            "bytes": sum(shard["bytes"] for shard in reader.shards),
            "left_out": sum(len(shard["left_out"]) for shard in reader.shards),
            "definition": reader.definition,
            "sources": dict(sorted(reader.sources.items())),
        }
        if verify:
            damaged |= reader.verify()
    return {
        "task": index["task"],
        "labels": len(index["labels"]),
        "splits": splits,
        "damaged": list(damaged.values()),
    }


def lines_of(found):
    """What `contents` found, as lines."""
    yield f"task {found['task']}, {found['labels']} labels"
    for name, split in found["splits"].items():
        yield (
            f"{name}: {split['records']:,} records, "
            f"{split['samples']:,} samples, {split['shards']} shards, "
            f"{split['bytes']:,} bytes, {split['left_out']} left out"
        )
        yield f"  {split['definition']}"
        for source, count in split["sources"].items():
            yield f"  {source}: {count:,} samples"
    for why in found["damaged"]:
        yield f"  DAMAGED {why}"


def draw(folder, split, picture, count=12, seed=0):
    """Draw some samples of a split into one picture.

    Args:
        folder: path of the data set.
        split: str.
        picture: path of the picture file.
        count: int, samples. All of them if there are fewer.
        seed: int, which chooses them.

    Returns:
        The number of samples that were drawn, and that of all.

    Raises:
        ValueError: no such split, or damaged records.
    """
    check_no_link(picture, "`picture`")
    reader = read.open_records(folder, split)
    count = min(count, reader.num_samples)
    rng = np.random.default_rng(seed)
    rows = rng.choice(reader.num_samples, count, replace=False)
    samples = [reader.sample(int(row)) for row in rows]
    sample_sheet(samples, reader.labels).save(picture)
    return count, reader.num_samples
