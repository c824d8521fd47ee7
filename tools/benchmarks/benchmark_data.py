"""Measure the pictures that a stream reads, and if `fit` waits for it.

Called by `benchmark.py data`; prints its tables.
"""

import argparse
import io
import itertools
import pathlib
import statistics
import tempfile
import time

import numpy as np
import torch

import transformers  # isort: skip
import tensorflow as tf
from PIL import Image
from PIL import ImageDraw
from transformers.utils import is_torchvision_available

import keras_bridgetower as kbt
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.data.records import format as form
from keras_bridgetower.data.records import read
from keras_bridgetower.data.records import write
from keras_bridgetower.data.stream.stream import Stream
from keras_bridgetower.preprocessing.geometry import RESIZERS

PICTURES, BATCH, SIDE, WORKERS = 384, 32, 288, 2
TRANSFORMS = ("hf", "clip_randaug", "blip_randaug_wohf", "blip_randaug_wc")
STEPS = 30


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--repeats", type=int, default=7)
    repeats = parser.parse_args().repeats
    with tempfile.TemporaryDirectory() as folder:
        folder = pathlib.Path(folder)
        paths = write_pictures(folder / "jpeg")
        compare_loaders(folder, paths, repeats)
        compare_fit(folder, repeats)


def write_pictures(folder):
    """Write JPEG files of 640 x 480 with edges, smooth parts and grain."""
    folder.mkdir()
    paths = []
    for number in range(PICTURES):
        rng = np.random.default_rng(number)
        small = rng.integers(0, 256, (6, 8, 3)).astype("uint8")
        image = Image.fromarray(small).resize((640, 480), Image.BICUBIC)
        draw = ImageDraw.Draw(image)
        for _ in range(12):
            corners = rng.integers(0, 480, (2, 2))
            box = np.sort(corners, axis=0).ravel().tolist()
            draw.ellipse(box, fill=tuple(rng.integers(0, 256, 3).tolist()))
        grain = rng.normal(0, 6, (480, 640, 3))
        pixels = np.clip(np.asarray(image) + grain, 0, 255).astype("uint8")
        paths.append(folder / f"{number}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=90)
    return paths


def open_set(folder, task, pictures, labels, samples):
    made = [
        form.Record(f"{i}", (data,), (sample,), "benchmark")
        for i, (data, sample) in enumerate(zip(pictures, samples, strict=True))
    ]
    write.write_shards(
        folder, "train", made, task=task, labels=labels, definition="timing"
    )
    return read.open_records(folder, "train")


def compare_loaders(folder, paths, repeats):
    samples = [form.Sample(str(i), "", (0,)) for i in range(len(paths))]
    reader = open_set(
        folder / "pictures",
        "image_classification",
        [path.read_bytes() for path in paths],
        ["any"],
        samples,
    )
    preprocessor = kbt.BridgeTowerImageClassifierPreprocessor(
        kbt.BridgeTowerImageConverter(SIDE), ["any"]
    )
    peers = peer_processors()
    loaders = {
        f"transformers {transformers.__version__}, {name}": peer_loader(
            paths, processor
        )
        for name, processor in peers.items()
    }
    for name, resizer in itertools.product(TRANSFORMS, RESIZERS):
        change = transform(name, SIDE, resizer)
        stream = Stream(reader, BATCH, change, preprocessor, workers=WORKERS)
        loaders[f"stream, {name}, {resizer}"] = stream.dataset(epochs=1)
    rates = {name: [] for name in loaders}
    for _ in range(repeats):
        for name, loader in loaders.items():
            rates[name].append(pictures_per_second(loader))
    medians = {name: statistics.median(rate) for name, rate in rates.items()}
    theirs = list(medians.values())[: len(peers)]
    print(
        f"\n{PICTURES} JPEGs of 640 x 480 to float32 batches of {BATCH} at "
        f"{SIDE} px, {WORKERS} workers; median of {repeats}, by turns\n"
    )
    if len(peers) == 1:
        print("transformers' other back end needs torchvision: not here\n")
    columns = " | ".join(f"over {name}" for name in peers)
    print(f"| loader | pictures / s | {columns} |")
    print("|---" * (2 + len(peers)) + "|")
    for name, rate in medians.items():
        ratios = " | ".join(f"{rate / their:.2f} x" for their in theirs)
        print(f"| {name} | {rate:.0f} | {ratios} |", flush=True)


def peer_processors():
    made = {"PIL": transformers.BridgeTowerImageProcessorPil()}
    if is_torchvision_available():
        made["torchvision"] = transformers.BridgeTowerImageProcessor()
    return made


def peer_loader(paths, processor):
    def collate(batch):
        images = [Image.open(path).convert("RGB") for path in batch]
        return processor(images, return_tensors="pt")["pixel_values"]

    return torch.utils.data.DataLoader(
        paths,
        batch_size=BATCH,
        shuffle=True,
        num_workers=WORKERS,
        collate_fn=collate,
        # Their start does not count.
        persistent_workers=True,
    )


def pictures_per_second(loader):
    """Time a loader from its first batch on."""
    batches = iter(loader)
    next(batches)
    started, count = time.perf_counter(), 0
    for _ in batches:
        count += BATCH
    return count / (time.perf_counter() - started)


def compare_fit(folder, repeats):
    """Time `fit` of a small model, on records and on arrays in memory."""
    task = kbt.BridgeTowerVQA.from_preset("bridgetower_tiny_easy_vqa")
    task.compile("adamw")
    pictures, samples = [], []
    for number in range(BATCH * STEPS):
        rng = np.random.default_rng(number)
        file = io.BytesIO()
        pixels = rng.integers(0, 256, (64, 64, 3)).astype("uint8")
        Image.fromarray(pixels).save(file, "PNG")
        pictures.append(file.getvalue())
        label = number % len(task.answers)
        samples.append(
            form.Sample(f"{number}", "is there a red circle?", (label,))
        )
    reader = open_set(folder / "vqa", "vqa", pictures, task.answers, samples)
    streams = {
        name: Stream(reader, BATCH, transform(name, 64), workers=WORKERS)
        for name in ("blip", "blip_randaug_wohf")
    }
    plain = streams["blip"]
    batches = [plain.batch(number) for number in range(STEPS)]
    memory = tf.data.Dataset.from_generator(
        lambda: iter(batches), output_signature=plain.dataset().element_spec
    ).repeat()
    datasets = {"memory": memory}
    datasets |= {name: s.dataset() for name, s in streams.items()}
    seconds = {name: [] for name in datasets}
    for turn in range(repeats + 1):
        for name, dataset in datasets.items():
            started = time.perf_counter(), time.process_time()
            task.fit(dataset, steps_per_epoch=STEPS, verbose=0)
            if turn:  # The first turn compiles.
                ended = time.perf_counter(), time.process_time()
                seconds[name].append(np.subtract(ended, started))
    print(
        f"\n`fit` of the tiny VQA model, {STEPS} steps of {BATCH}, records "
        "beside decoded batches in memory\n\n"
        "| stream | speed | by the processors' time |\n|---|---|---|"
    )
    for name in streams:
        # Turn by turn, for what else runs here changes between them.
        ratios = np.divide(seconds["memory"], seconds[name])
        wall, busy = np.median(ratios, axis=0)
        print(f"| {name} | {wall:.0%} | {busy:.0%} |", flush=True)


if __name__ == "__main__":
    main()
