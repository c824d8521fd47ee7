"""A small data set as WebDataset and img2dataset write it, with faults."""

import io
import itertools
import json
import tarfile

from PIL import Image
from PIL import ImageDraw

COLOURS = ("red", "blue", "green", "yellow", "black")
PLACES = ("north", "south", "west", "east", "center")
# Samples of the first shard that have no score, by key, and what is told.
FAULTS = {
    "000000003": "readable image file",
    "000000004": "must have a text",
    "000000006": "must have a picture",
    "000000007": "must be JSON",
    "000000009": "'utf-8' codec",
}


def picture(number):
    """The bytes of a PNG, and a text that may fit."""
    image = Image.new("RGB", (64, 64), (230, 235, 240))
    draw = ImageDraw.Draw(image)
    shape = ("ellipse", "rectangle")[number % 2]
    colour = COLOURS[number % len(COLOURS)]
    # No two pictures are the same.
    left = 4 + number % 100 + 12 * (number // 100)
    getattr(draw, shape)((left, 20, left + 20, 44), fill=colour)
    file = io.BytesIO()
    image.save(file, "PNG")
    told = COLOURS[number * 3 % len(COLOURS)]
    text = f"a medium {told} circle in the {PLACES[number % 4]}."
    return file.getvalue(), text


def samples(shard, count=None, faults=False):
    """`(key, dict from suffix to bytes)` of the samples of a shard.

    By default 12 of the first shard and 4 of each other.
    """
    count = count or (4 if shard else 12)
    for number in range(count):
        image, text = picture(shard * 100 + number)
        key = f"{shard:05}{number:04}"
        about = {"caption": text, "uid": f"uid {shard} {number}", "key": key}
        files = {
            "jpg": image,
            "json": json.dumps(about).encode(),
            "txt": text.encode(),
        }
        if faults:
            files |= _spoilt(files, number)
        yield key, {k: data for k, data in files.items() if data is not None}


def _spoilt(files, number):
    """The files that a number changes."""
    return {
        3: {"jpg": files["jpg"][:30]},
        4: {"txt": b" "},
        # The JSON has it too.
        5: {"txt": None},
        6: {"jpg": None},
        7: {"json": b"{"},
        # Longer than the model reads.
        8: {"txt": files["txt"] * 20},
        9: {"txt": b"\xff"},
    }.get(number, {})


def write_tar(path, some):
    with tarfile.open(path, "w") as tar:
        for key, files in some:
            for suffix, data in files.items():
                member = tarfile.TarInfo(f"{key}.{suffix}")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


def write_folder(path, some):
    path.mkdir(parents=True)
    for key, files in some:
        for suffix, data in files.items():
            (path / f"{key}.{suffix}").write_bytes(data)


def write_set(folder, write, suffix=""):
    """Three shards, the first of which has faults; as img2dataset has them."""
    folder.mkdir()
    for shard in range(3):
        some = samples(shard, faults=shard == 0)
        write(folder / f"{shard:05}{suffix}", some)
        (folder / f"{shard:05}.parquet").write_bytes(b"not read")
        (folder / f"{shard:05}_stats.json").write_text("{}")
    return folder


def good():
    """`(key, picture, text)` of all samples that can be scored."""
    for key, files in itertools.chain.from_iterable(
        samples(shard, faults=shard == 0) for shard in range(3)
    ):
        if key not in FAULTS:
            text = files.get("txt") or json.loads(files["json"])["caption"]
            text = text if isinstance(text, str) else text.decode()
            yield key, files["jpg"], text
