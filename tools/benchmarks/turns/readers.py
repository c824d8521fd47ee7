"""Readers of one set of pictures, for `benchmark_readers.py`."""

import functools
import io
import sys
import tarfile

import numpy as np
from PIL import Image

FILES, GROUP, BATCH, SIDE, SEED = 10, 100, 32, 224, 7
CAPTION = "a picture of number {}"


def decoded(data):
    """Decode a picture as `data.transform("blip", SIDE)` does."""
    image = Image.open(io.BytesIO(data)).convert("RGB")
    size = (SIDE, SIDE)
    return np.asarray(image.resize(size, Image.Resampling.BICUBIC))


class Ours:
    """A stream over a folder; workers are threads."""

    def __init__(self, kind, folder, workers):
        from keras_bridgetower import data

        reader = data.open_records(folder / kind, "train")
        change = data.transform("blip", SIDE)
        given = {"target": "none", "seed": SEED, "workers": max(workers, 1)}
        self.workers, self.given = workers, (kind, folder, workers)
        self.stream = data.Stream(reader, BATCH, change, **given)

    def batches(self, start=0):
        numbers = range(start, self.stream.steps_per_epoch)
        if self.workers:
            dataset = self.stream.dataset((0, start), epochs=1)
            found = (x for (x,) in dataset.as_numpy_iterator())
        else:
            found = map(self.stream.batch, numbers)
        for x in found:
            yield x["images"]

    def read(self):
        """Read all records without decoding, and return their number."""
        stream = Ours(*self.given).stream
        steps = range(stream.steps_per_epoch)
        return sum(len(stream.ids(number)) for number in steps)


class WebDataset:
    """Shards in random order, rows by a buffer of 1,000."""

    def __init__(self, folder, workers):
        import torch
        import webdataset

        self.library, self.torch, self.workers = webdataset, torch, workers
        self.paths = [str(p) for p in sorted((folder / "tars").glob("*.tar"))]

    def rows(self):
        given = {"shardshuffle": FILES, "seed": SEED}
        dataset = self.library.WebDataset(self.paths, **given)
        return dataset.shuffle(1000, seed=SEED)

    def batches(self, start=0):
        # It cannot start elsewhere: each worker skips rows without decoding.
        skipped = start * BATCH // max(self.workers, 1)
        rows = self.rows().slice(skipped, sys.maxsize)
        rows = rows.map(lambda row: decoded(row["jpg"]))
        batched = rows.batched(BATCH, collation_fn=np.stack)
        loader = self.torch.utils.data.DataLoader(
            batched.map(self.torch.from_numpy),
            batch_size=None,
            num_workers=self.workers,
        )
        for batch in loader:
            yield batch.numpy()

    def read(self):
        return sum(1 for _ in self.rows())


class Mosaic:
    """Files of MDS on this machine, shuffled by its default."""

    def __init__(self, folder, workers):
        import streaming
        import torch

        class Pictures(streaming.StreamingDataset):
            def __getitem__(self, number):
                return decoded(super().__getitem__(number)["jpg"])

        streaming.base.util.clean_stale_shared_memory()
        given = {"shuffle": True, "shuffle_seed": SEED, "batch_size": BATCH}
        self.dataset = Pictures(local=str(folder / "mds"), **given)
        self.loader = streaming.StreamingDataLoader(
            self.dataset,
            batch_size=BATCH,
            num_workers=workers,
            collate_fn=lambda rows: torch.from_numpy(np.stack(rows)),
        )
        self.states, self.raw = [], streaming.StreamingDataset.__getitem__

    def batches(self, start=0):
        if start:
            # A state of an epoch before the next one would be ignored.
            self.dataset.next_epoch = 0
            self.loader.load_state_dict(self.states[start - 1])
        for batch in self.loader:
            self.states.append(self.loader.state_dict())
            yield batch.numpy()

    def read(self):
        count = len(self.dataset)
        for number in np.random.default_rng(SEED).permutation(count):
            self.raw(self.dataset, int(number))
        return count


READERS = {
    "ours, shards": functools.partial(Ours, "shards"),
    "ours, tars in place": functools.partial(Ours, "tars"),
    "ours, Parquet in place": functools.partial(Ours, "parquet"),
    "webdataset": WebDataset,
    "mosaicml-streaming": Mosaic,
}


def write_all(folder, count):
    """Write the same pictures in each form."""
    import pyarrow
    import streaming
    from pyarrow import parquet

    from keras_bridgetower import data

    rows = [(f"{i:06}", picture(i), CAPTION.format(i)) for i in range(count)]
    records = [
        data.Record(key, (file,), (data.Sample(key, text),), "benchmark")
        for key, file, text in rows
    ]
    told = {"definition": "Made by a benchmark."}
    given = folder / "shards", "train", records
    data.write_shards(*given, task="captions", num_shards=FILES, **told)
    for name in ("tars", "parquet"):
        (folder / name).mkdir(parents=True)
    for number in range(FILES):
        some = rows[number::FILES]
        with tarfile.open(folder / "tars" / f"{number:05}.tar", "w") as tar:
            for key, file, text in some:
                for kind, content in (("jpg", file), ("txt", text.encode())):
                    member = tarfile.TarInfo(f"{key}.{kind}")
                    member.size = len(content)
                    tar.addfile(member, io.BytesIO(content))
        keys, files, texts = zip(*some, strict=True)
        columns = pyarrow.table({"key": keys, "jpg": files, "txt": texts})
        path = folder / "parquet" / f"{number:05}.parquet"
        parquet.write_table(columns, path, GROUP)
    data.index_tars(folder / "tars", "train", **told)
    columns = {"image": "jpg", "text": "txt"}
    data.index_parquet(folder / "parquet", "train", **columns, **told)
    size = sum(len(file) for _, file, _ in rows) // FILES
    given = {"out": str(folder / "mds"), "size_limit": size}
    kinds = {"jpg": "bytes", "txt": "str"}
    with streaming.MDSWriter(columns=kinds, **given) as writer:
        for _, file, text in rows:
            writer.write({"jpg": file, "txt": text})


def picture(number):
    """Return a JPEG of 256 px with smooth parts and grain."""
    rng = np.random.default_rng(number)
    small = rng.integers(0, 256, (8, 8, 3)).astype("uint8")
    smooth = Image.fromarray(small).resize((256, 256), Image.BICUBIC)
    grain = rng.normal(0, 6, (256, 256, 3))
    pixels = np.clip(np.asarray(smooth) + grain, 0, 255).astype("uint8")
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "JPEG", quality=90)
    return file.getvalue()
