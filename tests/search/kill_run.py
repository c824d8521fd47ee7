"""Kills runs of `index` and lets the next run go on; called by test_kill.py.

    python kill_run.py PHOTOS FOLDER KIND KILLS SEED

The model is opened once. Each run of `index` is a forked process of its own,
which opens the store, and is killed with SIGKILL after a random time.
"""

import json
import os
import pathlib
import random
import signal
import sys
import time

import keras_bridgetower as kbt

MATCHING = "bridgetower_tiny_easy_pretrain"


def main():
    photos, folder, kind, kills, seed = sys.argv[1:]
    folder, draws = pathlib.Path(folder), random.Random(int(seed))
    models = kbt.search.SearchModels.from_preset(MATCHING)
    # What takes long the first time alone.
    models.embed_query("a circle")
    models.embed(images=[next(pathlib.Path(photos).rglob("*_0.png"))] * 4)

    def run(name):
        store = ("qdrant:" if kind == "qdrant" else "") + str(folder / name)
        search = kbt.search.PictureSearch(store, models)
        report = search.index(photos, batch_size=4, save_every=4)
        contents = search.store.nearest(models.embed_query("a circle"), 1000)
        search.close()
        rows = sorted((s.path, s.sum, similar) for s, similar in contents)
        told = {"embedded": report.embedded, "unchanged": report.unchanged}
        return {**told, "rows": rows}

    whole, seconds = child(lambda: run("whole"))
    results = {"whole": whole, "killed": []}
    for number in range(int(kills)):
        name = f"killed_{number}"
        after = draws.random() * seconds
        killed, _ = child(lambda name=name: run(name), after)
        found, _ = child(lambda name=name: run(name))
        found["was_killed"] = killed is None
        found["after"] = after / seconds
        results["killed"].append(found)
    print(json.dumps(results))


def child(function, kill_after=None):
    """What a function returns in a forked process, and its seconds.

    Returns:
        `(result, seconds)`; None where it was killed before it ended.
    """
    read, write = os.pipe()
    started = time.monotonic()
    process = os.fork()
    if process == 0:
        os.close(read)
        code = 1
        try:
            with os.fdopen(write, "w") as file:
                file.write(json.dumps(function()))
            code = 0
        finally:
            sys.stderr.flush()
            os._exit(code)
    os.close(write)
    if kill_after is not None:
        time.sleep(kill_after)
        os.kill(process, signal.SIGKILL)
    with os.fdopen(read) as file:
        text = file.read()
    _, status = os.waitpid(process, 0)
    if os.waitstatus_to_exitcode(status) > 0:
        sys.exit("a run failed")
    killed = os.waitstatus_to_exitcode(status) < 0
    return (None if killed else json.loads(text)), time.monotonic() - started


if __name__ == "__main__":
    main()
