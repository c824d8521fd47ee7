"""Run a contender in a process of its own, one turn for each line of input.

Reads a line of JSON for each turn from standard input, and writes one.
"""

import importlib
import json
import os
import pathlib
import sys
import time

from turns.devices import run_on
from turns.rounds import Saved
from turns.works import Contender


def main():
    function, folder, fields = sys.argv[1:]
    # Prints of libraries must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    started = time.perf_counter()
    contender = Contender(**json.loads(fields))
    module, _, name = function.partition(".")
    work = getattr(importlib.import_module(f"turns.{module}"), name)
    prepare = work(
        Saved.of(pathlib.Path(folder)), contender, **contender.settings
    )
    loading = time.perf_counter() - started
    answer(loading=loading, **run_on(contender))
    turns = {}
    for line in sys.stdin:
        request = json.loads(line)
        key = request["batch"], request["tokens"]
        first = key not in turns
        if first:
            turns[key] = prepare(*key)
        started = time.perf_counter()
        outputs = turns[key]()
        seconds = time.perf_counter() - started
        if first:
            turns[key]()
            answer(first=seconds, outputs=outputs.tolist())
        else:
            answer(seconds=seconds, **getattr(turns[key], "measured", dict)())


if __name__ == "__main__":
    main()
