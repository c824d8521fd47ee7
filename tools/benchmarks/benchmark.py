"""Time the base-size model beside transformers on the same weights.

    export KERAS_BACKEND=jax PYTHONPATH=tests
    python tools/benchmarks/benchmark.py
    python tools/benchmarks/benchmark.py --what loading --repeats 5
    python tools/benchmarks/benchmark.py --what conversion --repeats 3
    python tools/benchmarks/benchmark.py --what pretraining
    python tools/benchmarks/benchmark.py --what memory --repeats 2
    python tools/benchmarks/benchmark.py --what data

Both run in this process, by turns, so that a busy machine slows both; the
ratio of the medians is what counts. The peer and the copying of its weights
are those of `tests`. Needs the extra `dev`.
"""

import argparse
import statistics
import time

# Before TensorFlow, after which importing it can crash.
import torch

import keras  # isort: skip
import numpy as np  # isort: skip

import benchmark_conversion  # noqa: E402
import benchmark_data  # noqa: E402
import benchmark_loading  # noqa: E402
import benchmark_memory  # noqa: E402
import benchmark_pretraining  # noqa: E402
import peer  # noqa: E402

SIZES = {
    "base": peer.BASE,
    "small": peer.SMALL,
    "tiny": benchmark_pretraining.TINY,
}
OTHERS = {
    "loading": benchmark_loading.run,
    "conversion": benchmark_conversion.run,
    "pretraining": benchmark_pretraining.run,
    "memory": benchmark_memory.run,
    "data": benchmark_data.run,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--batch-sizes", type=int, nargs="+", default=[1, 4])
    parser.add_argument("--tokens", type=int, default=32)
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument(
        "--what",
        choices=("forward", *OTHERS),
        default="forward",
    )
    arguments = parser.parse_args()
    size = SIZES[arguments.size]
    if arguments.what in OTHERS:
        OTHERS[arguments.what](size, arguments.repeats)
        return
    print("building both models ...", flush=True)
    theirs, ours = peer.peer(size), peer.ours(size)
    peer.copy_weights(theirs, ours)
    print(
        f"\nforward, {arguments.size}, {size['side']} px, {arguments.tokens} "
        f"tokens, float32, {torch.get_num_threads()} threads; median of "
        f"{arguments.repeats}\n\n"
        "| backend | outputs | batch | keras_bridgetower | transformers | "
        "ratio | max diff |\n"
        "|---|---|---|---|---|---|---|"
    )
    # What a head of `pooled` runs, and everything that the peer computes.
    pooled = ours.fuse(ours.input, outputs=("pooled",))
    for name, outputs in (("pooled", pooled), ("all", ours.output)):
        model = keras.Model(ours.input, outputs)
        # As a task is: "auto" is XLA on TensorFlow and JAX, eager on torch.
        model.compile(jit_compile="auto")
        for batch in arguments.batch_sizes:
            mine, their = peer.inputs(size, batch, arguments.tokens)
            a, b, difference = compare(model, theirs, mine, their, arguments)
            print(
                f"| {keras.config.backend()} | {name} | {batch} | "
                f"{a * 1e3:.0f} ms | {b * 1e3:.0f} ms | {b / a:.2f} x | "
                f"{difference:.0e} |",
                flush=True,
            )


def compare(ours, theirs, mine, their, arguments):
    """Median seconds of both, taken by turns, and how the outputs differ."""

    def run_ours():
        return ours.predict_on_batch(mine)["pooled"]

    def run_theirs():
        with torch.inference_mode():
            return theirs.bridgetower(**their).pooler_output.numpy()

    # The first runs trace and compile.
    difference = np.abs(run_ours() - run_theirs()).max()
    run_ours()
    seconds = {run_ours: [], run_theirs: []}
    for _ in range(arguments.repeats):
        for run, taken in seconds.items():
            started = time.perf_counter()
            run()
            taken.append(time.perf_counter() - started)
    return (*map(statistics.median, seconds.values()), difference)


if __name__ == "__main__":
    main()
