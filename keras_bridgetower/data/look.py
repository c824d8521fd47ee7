"""Summarizes a built data set: counts, and a picture of some samples."""

import textwrap

import numpy as np
from PIL import Image
from PIL import ImageDraw
from PIL import ImageFont
from PIL import ImageOps

from keras_bridgetower.data.records.format import read_index
from keras_bridgetower.data.records.read import open_records
from keras_bridgetower.files import check_no_link
from keras_bridgetower.preprocessing.images import decode_image

# Layout of a sheet of samples, in pixels, lines and letters.
_SIDE, _GAP, _LINE, _LINES = 200, 10, 14, 6
_FONT_SIZE, _LETTERS = 11, 34


def contents(folder, verify=False):
    """Summarize a data set of records.

    Args:
        folder: path of the data set.
        verify: bool. If True, read all files and compare their checksums.

    Returns:
        dict of `task`, `labels` (their number), `splits` (dict from each name
        to a dict of counts and texts) and `damaged` (a str for each damaged
        shard).

    Raises:
        ValueError: the data set does not exist, or its index is damaged.
    """
    index = read_index(folder)
    splits, damaged = {}, {}
    for name in index["splits"]:
        reader = open_records(folder, name)
        splits[name] = {
            "records": reader.num_records,
            "samples": reader.num_samples,
            "shards": len(reader.shards),
            "bytes": sum(shard["bytes"] for shard in reader.files),
            "left_out": sum(len(shard["left_out"]) for shard in reader.files),
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


def lines(found):
    """Yield the result of `contents` as lines of text."""
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
        picture: path of the picture file to write.
        count: int, number of samples; all of them if there are fewer.
        seed: int, seed of the choice.

    Returns:
        The number of samples in the picture, and the number in the split.

    Raises:
        ValueError: the split does not exist, or its records are damaged.
    """
    check_no_link(picture, "`picture`")
    reader = open_records(folder, split)
    count = min(count, reader.num_samples)
    rng = np.random.default_rng(seed)
    rows = rng.choice(reader.num_samples, count, replace=False)
    samples = [reader.sample(int(row)) for row in rows]
    _sheet(samples, reader.labels).save(picture)
    return count, reader.num_samples


def _sheet(items, labels, columns=4):
    """Draw `Item`s in rows of `columns`, with their texts and labels."""
    rows = -(-len(items) // columns)
    width, height = _SIDE + _GAP, _SIDE + _LINES * _LINE + _GAP
    sheet = Image.new("RGB", (columns * width, rows * height), "white")
    pen = ImageDraw.Draw(sheet)
    font = ImageFont.load_default(_FONT_SIZE)
    for number, item in enumerate(items):
        row, column = divmod(number, columns)
        left, top = column * width + _GAP // 2, row * height + _GAP // 2
        for i, image in enumerate(item.images):
            side = _SIDE // len(item.images)
            picture = decode_image(
                image, f"picture of sample {item.sample.id!r}"
            )
            small = ImageOps.pad(picture, (side - 2, _SIDE), color="lightgray")
            sheet.paste(small, (left + i * side, top))
        texts = textwrap.wrap(item.sample.text, _LETTERS)[: _LINES - 2]
        texts += [_answer(item.sample, labels), item.sample.id]
        for i, line in enumerate(texts):
            place = left, top + _SIDE + i * _LINE
            pen.text(place, line[:_LETTERS], "black", font)
    return sheet


def _answer(sample, labels):
    scores = sample.scores or (None,) * len(sample.labels)
    return ", ".join(
        labels[label] if score is None else f"{labels[label]} {score:.1f}"
        for label, score in zip(sample.labels, scores, strict=True)
    )
