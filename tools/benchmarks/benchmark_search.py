"""Latency and recall of a search in made vectors, with and without ANN.

    python tools/benchmarks/benchmark_search.py
    python tools/benchmarks/benchmark_search.py --count 100000 --store qdrant

`clustered` vectors lie around random centers, as those of pictures do;
`uniform` ones are the hardest case. The truth is brute force in NumPy. The last
lines time whole queries over random pictures, with and without re-ranking.
"""

import argparse
import pathlib
import statistics
import tempfile
import time
import uuid

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.apps.search.stores.store import StoredPicture

NEAREST = 10
CENTRES = 2000
# Rows that are written at once.
WRITTEN = 10_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=512)
    parser.add_argument("--queries", type=int, default=100)
    parser.add_argument("--store", default="lancedb", choices=STORES)
    parser.add_argument("--preset", default="bridgetower_tiny_easy_pretrain")
    parser.add_argument("--pictures", type=int, default=500)
    arguments = parser.parse_args()
    print(
        f"{arguments.count:,} vectors of {arguments.width}, "
        f"{arguments.queries} queries, {arguments.store}\n"
        "| vectors | search | built in | median | 95 % | recall@10 |\n"
        "|---|---|---|---|---|---|"
    )
    for kind in ("clustered", "uniform"):
        with tempfile.TemporaryDirectory() as folder:
            vectors_of(kind, arguments, pathlib.Path(folder))
    if arguments.preset:
        with tempfile.TemporaryDirectory() as folder:
            whole_queries(arguments, pathlib.Path(folder))


STORES = {
    "lancedb": kbt.search.LanceStore,
    "qdrant": kbt.search.QdrantFolder,
}


def vectors_of(kind, arguments, folder):
    rng = np.random.default_rng(0)
    width = arguments.width
    centres = unit(rng.normal(size=(CENTRES, width)))

    def draw(count):
        noise = rng.standard_normal((count, width), "float32")
        if kind == "uniform":
            return unit(noise)
        around = centres[rng.integers(0, CENTRES, count)]
        return unit(around + noise * np.float32(0.8 / np.sqrt(width)))

    vectors, queries = draw(arguments.count), draw(arguments.queries)
    store = STORES[arguments.store](folder / "store")
    store.create({"width": width, "store": store.kind})
    for start in range(0, len(vectors), WRITTEN):
        some = vectors[start : start + WRITTEN]
        pictures = [stored(start + i) for i in range(len(some))]
        store.put(pictures, some)
    order = np.argsort(-(queries @ vectors.T), axis=1)[:, :NEAREST]
    truth = [{name(i) for i in row} for row in order.tolist()]
    for words, ann_from in (("all vectors", len(vectors) + 1), ("ANN", 1)):
        started = time.perf_counter()
        store.tidy(ann_from=ann_from)
        built = time.perf_counter() - started
        if words == "ANN" and not store.has_ann():
            break
        found, times = timed(lambda q: store.nearest(q, NEAREST), queries)
        ids = [{picture.id for picture, _ in pictures} for pictures in found]
        right = sum(len(a & b) for a, b in zip(ids, truth, strict=True))
        print(
            f"| {kind} | {words} | {built:.0f} s | {times} | "
            f"{right / NEAREST / len(queries):.3f} |",
            flush=True,
        )
    store.close()


def timed(call, queries):
    """Return all results, and median and 95th percentile in milliseconds."""
    call(queries[0])  # Opens the files.
    found, seconds = [], []
    for query in queries:
        started = time.perf_counter()
        found.append(call(query))
        seconds.append(time.perf_counter() - started)
    worst = float(np.percentile(seconds, 95))
    middle = statistics.median(seconds)
    return found, f"{1000 * middle:.0f} ms | {1000 * worst:.0f} ms"


def whole_queries(arguments, folder):
    """Print how long a query over drawn pictures takes, re-ranked or not."""
    from PIL import Image

    rng = np.random.default_rng(0)
    (folder / "photos").mkdir()
    for number in range(arguments.pictures):
        pixels = rng.integers(0, 256, (8, 8, 3)).astype("uint8")
        picture = Image.fromarray(pixels).resize((256, 256))
        picture.save(folder / "photos" / f"{number}.jpg")
    search = kbt.search.PictureSearch(folder / "index", arguments.preset)
    started = time.perf_counter()
    search.index(folder / "photos")
    rate = arguments.pictures / (time.perf_counter() - started)
    print(f"{arguments.preset}: {rate:.0f} pictures a second indexed")
    queries = [f"a red circle, {number}" for number in range(20)]
    for rerank in (0, 16, 128):

        def query(text, rerank=rerank):
            return search.query(text, rerank=rerank)

        _, times = timed(query, queries)
        print(f"a query with rerank={rerank}: {times}", flush=True)


def stored(number):
    path = f"{number % 1000:03}/{number:08}.jpg"
    return StoredPicture(name(number), f"{number:064x}", "/made", "/made", path)


def name(number):
    return str(uuid.UUID(int=number))


def unit(rows):
    return (rows / np.linalg.norm(rows, axis=1, keepdims=True)).astype(
        "float32"
    )


if __name__ == "__main__":
    main()
