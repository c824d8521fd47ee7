"""Kills runs of `index` and lets the next run go on; called by test_kill.py.

    python kill_run.py PHOTOS FOLDER KIND KILLS SEED

The model is opened once. Each run of `index` is a forked process of its own,
which opens the store, and is killed with SIGKILL after a random time.
"""

import contextlib
import importlib
import json
import os
import pathlib
import random
import signal
import sys
import time
import traceback

import keras_bridgetower as kbt

MATCHING = "bridgetower_tiny_easy_pretrain"


def main():
    photos, folder, kind, kills, seed = sys.argv[1:]
    folder, draws = pathlib.Path(folder), random.Random(int(seed))
    models = kbt.search.SearchModels.from_preset(MATCHING)
    # What takes long the first time alone, and starts no thread.
    for package in ("pyarrow.dataset", "lance_namespace"):
        with contextlib.suppress(ImportError):
            importlib.import_module(package)
    models.embed_query("a circle")
    models.embed(images=[next(pathlib.Path(photos).rglob("*_0.png"))] * 4)

    def run(name, begun=lambda: None):
        store = ("qdrant:" if kind == "qdrant" else "") + str(folder / name)
        search = kbt.search.PictureSearch(store, models)
        begun()
        started = time.monotonic()
        report = search.index(photos, batch_size=4, save_every=4)
        seconds = time.monotonic() - started
        contents = search.store.nearest(models.embed_query("a circle"), 1000)
        search.close()
        return {
            "embedded": report.embedded,
            "unchanged": report.unchanged,
            "seconds": seconds,
            "rows": sorted((s.path, s.sum, similar) for s, similar in contents),
        }

    whole = in_process(lambda begun: run("whole", begun))
    names = [f"killed_{number}" for number in range(int(kills))]
    killed = [
        in_process(
            lambda begun, name=name: run(name, begun),
            kill_after=draws.random() * whole["seconds"],
        )
        for name in names
    ]
    after = in_process(lambda begun: [run(name) for name in names])
    for found, result in zip(after, killed, strict=True):
        found["was_killed"] = result is None
    print(json.dumps({"whole": whole, "killed": after}))


def in_process(function, kill_after=None):
    """Return the result of a function in a forked process; None if killed.

    The process may be killed so many seconds after the function calls its
    argument, which says that it begins.
    """
    read, write = os.pipe()
    process = os.fork()
    if process == 0:
        os.close(read)
        try:
            with os.fdopen(write, "w") as file:
                result = function(lambda: print("begun", file=file, flush=True))
                file.write(json.dumps(result))
            os._exit(0)
        except BaseException:
            traceback.print_exc()
            sys.stderr.flush()
            os._exit(1)
    os.close(write)
    with os.fdopen(read) as file:
        if kill_after is not None:
            file.readline()
            time.sleep(kill_after)
            os.kill(process, signal.SIGKILL)
        text = file.read()
    _, status = os.waitpid(process, 0)
    code = os.waitstatus_to_exitcode(status)
    if code > 0:
        sys.exit("a run failed")
    return None if code < 0 else json.loads(text.removeprefix("begun\n"))


if __name__ == "__main__":
    main()
