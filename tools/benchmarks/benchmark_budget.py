"""Time queries with a budget over drawn scenes; draw quality over the budget.

    export PYTHONPATH=examples KERAS_BACKEND=torch
    python tools/benchmarks/benchmark_budget.py runs/photos

The scenes are collages of `examples/photo_world`, a query is a caption of one.
The process that indexes is killed in the middle and started again. Quality is
the share of the ten best hits that are among the ten best without a budget (for
the first queries only), and how often the scene of the caption is among them.
Writes budget.csv and budget.png into the folder, and reuses existing files.
"""

import argparse
import gc
import json
import pathlib
import subprocess
import sys
import time

import numpy as np
from PIL import Image
from turns import report

import keras_bridgetower as kbt
from keras_bridgetower.files import write_atomically

BEST = 10
BUDGETS = (100, 200, 500, 1000)
JUDGED = (100, 1_000, 10_000)
# A query is late if it takes more than so many times its budget.
ALLOWED = 1.1
# Pairs that are judged without a budget, for each number of pictures.
PAIRS = 50_000


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--preset", default="bridgetower_small_photo_pretrain")
    parser.add_argument("--pictures", type=int, default=10_000)
    parser.add_argument("--queries", type=int, default=200)
    parser.add_argument("--judged", type=int, nargs="+", default=JUDGED)
    parser.add_argument("--states", default="float16")
    parser.add_argument("--fusion", help="a folder of `export_fusion`")
    parser.add_argument("--index", action="store_true", help="index, no more")
    settings = parser.parse_args()
    folder = settings.folder / "budget"
    captions = draw(settings, folder / "pictures")
    place = folder / f"index_{settings.states}"
    if settings.index:
        search = kbt.search.PictureSearch(place, settings.preset)
        search.index(folder / "pictures", states=settings.states)
        return
    if not (place / "indexed.json").exists():
        index_with_a_kill(place)
    models = kbt.search.SearchModels.from_preset(
        settings.preset, fusion=settings.fusion
    )
    search = kbt.search.PictureSearch(place, models)
    rng = np.random.default_rng(1)
    asked = rng.choice(len(captions), settings.queries, replace=False)
    rows = measured(search, [(i, captions[i]) for i in asked], settings.judged)
    report.write_csv(folder / "budget.csv", rows)
    panel = rows, "budget_ms", "same_of_ten", "judged"
    report.curves(folder / "budget.png", panel, xscale="log")


def draw(settings, folder):
    """Draw scenes of the test split; return a caption of each."""
    from photo_world import captions
    from photo_world import packages
    from photo_world import scenes
    from photo_world import things

    told = folder.with_name("captions.json")
    if not told.exists():
        folder.mkdir(parents=True, exist_ok=True)
        world = things.load(packages.fetch(settings.folder / "packages"))
        drawn = scenes.Scenes(world, "test")
        rng, found = np.random.default_rng(0), []
        for number in range(settings.pictures):
            scene = drawn.draw(rng)
            picture = Image.fromarray(scene.picture)
            picture.save(folder / f"{number}.jpg", quality=90)
            found.append(captions.captions(scene, rng)[-1])
        text = json.dumps(found).encode()
        write_atomically(told, lambda file: file.write(text))
    return json.loads(told.read_text())


def index_with_a_kill(place):
    """Index in a process that is killed once some states are written."""
    command = [sys.executable, *sys.argv, "--index"]
    started = time.perf_counter()
    process = subprocess.Popen(command)
    while process.poll() is None and len(list(place.rglob("*.sums"))) < 5:
        time.sleep(0.2)
    process.kill()
    process.wait()
    killed = time.perf_counter() - started
    subprocess.run(command, check=True)
    whole = time.perf_counter() - started
    size = sum(f.stat().st_size for f in place.rglob("*.rows"))
    told = {"killed": killed, "seconds": whole, "bytes of states": size}
    (place / "indexed.json").write_text(json.dumps(told))
    print(
        f"Killed after {killed:.0f} s, whole after {whole:.0f} s: "
        f"{size / 1e6:.0f} MB of states",
        flush=True,
    )


def measured(search, asked, judged):
    """Return a dict for each number of pictures and each budget."""
    rows = []
    for count in judged:
        whole = [
            search.query(text, rerank=count)
            for _, text in asked[: PAIRS // count]
        ]
        # The first queries of each width of texts measure the fusion.
        for _, text in sorted(asked, key=lambda pair: len(pair[1])):
            search.query(text, rerank=count, budget_ms=BUDGETS[0])
        # Or the garbage collector looks through the frameworks now and then.
        gc.collect()
        gc.freeze()
        for budget in BUDGETS:
            seconds, overlap, found, full = [], [], [], []
            for place, (number, text) in enumerate(asked):
                started = time.perf_counter()
                hits = search.query(text, rerank=count, budget_ms=budget)
                seconds.append(time.perf_counter() - started)
                names = [pathlib.Path(hit.path).stem for hit in hits]
                if place < len(whole):
                    best = {pathlib.Path(hit.path).stem for hit in whole[place]}
                    overlap.append(len(best.intersection(names)) / BEST)
                found.append(str(number) in names)
                full.append(sum(hit.stage == "full" for hit in hits) / BEST)
            taken = 1000 * np.array(seconds)
            rows.append(
                {
                    "judged": count,
                    "budget_ms": budget,
                    "median_ms": round(float(np.median(taken))),
                    "longest_ms": round(float(taken.max())),
                    "late": int((taken > ALLOWED * budget).sum()),
                    "queries": len(asked),
                    "same_of_ten": round(float(np.mean(overlap)), 3),
                    "scene_in_ten": round(float(np.mean(found)), 3),
                    "by_all_tokens": round(float(np.mean(full)), 3),
                }
            )
            print(rows[-1], flush=True)
    return rows


if __name__ == "__main__":
    main()
