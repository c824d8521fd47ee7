"""A contender in a process of its own, which takes a turn when it is told to.

Reads a line of JSON for each turn from standard input, and answers with one.
"""

import importlib
import json
import os
import pathlib
import sys
import time


def main():
    module, folder, fields = sys.argv[1:]
    # What libraries print must not come between the answers.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    from turns.contenders import Contender
    from turns.devices import ran_on
    from turns.saved import Saved

    def answer(**values):
        print(json.dumps(values), file=answers, flush=True)

    started = time.perf_counter()
    contender = Contender(**json.loads(fields))
    cls = importlib.import_module(f"turns.{module}").LIBRARIES[
        contender.library
    ]
    made = cls(Saved.of(pathlib.Path(folder)), contender, **contender.settings)
    loading = time.perf_counter() - started
    answer(loading=loading, **ran_on(contender))
    prepared = {}
    for line in sys.stdin:
        asked = json.loads(line)
        key = asked["batch"], asked["tokens"]
        if key not in prepared:
            prepared[key] = run = made.run(*key)
            started = time.perf_counter()
            outputs = run()
            first = time.perf_counter() - started
            run()
            answer(first=first, outputs=outputs.tolist())
            continue
        started = time.perf_counter()
        prepared[key]()
        seconds = time.perf_counter() - started
        answer(seconds=seconds, **made.measured())


if __name__ == "__main__":
    main()
