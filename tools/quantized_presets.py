r"""Compare the small presets in float32 with integers of 8 and 4 bits.

    KERAS_BACKEND=torch python tools/quantized_presets.py

prints a Markdown table: the score on the test split, the size of the weights,
and the time of one row, with PyTorch, ONNX and OpenVINO in one thread. Keras'
own integers are measured on every backend; ONNX and OpenVINO need PyTorch and
the extra `export`. The ranges of their activations are those of training
pictures. The whole test takes long: `--rows 500` reads its beginning.
"""

import argparse
import gc
import os
import pathlib
import statistics
import tempfile
import time
import warnings

# Before a framework is imported.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import keras
import numpy as np
from keras_bridgetower_drawings.training.easy import tiny_family
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

import keras_bridgetower as kbt
from keras_bridgetower.models.exporting import runtime

PREFIX = "bridgetower_tiny_easy_"
BATCH, CALIBRATED, TIMED = 128, 256, 50
MEGABYTE = 2**20


# The task, whose output is one array of logits, and a function from scenes and
# seed to raw inputs and labels.
PRESETS = {
    "vqa": (kbt.BridgeTowerVQA, tiny_family.questions),
    "retrieval": (kbt.BridgeTowerRetrieval, tiny_family.matches),
    "entailment": (kbt.BridgeTowerEntailment, tiny_family.hypotheses),
    "nlvr2": (kbt.BridgeTowerNLVR2, tiny_family.statements),
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--only", nargs="+", choices=PRESETS, default=PRESETS)
    parser.add_argument("--rows", type=int, help="first rows of the test only")
    settings = parser.parse_args()
    warnings.filterwarnings("ignore", "Layer .* does not have a")
    test, train = load_scenes("test"), load_scenes("train")
    print(f"{keras.config.backend()}\n")
    print("| preset | kind | % right | MB | ms |\n|---|---|---|---|---|")
    for name in settings.only:
        cls, rows = PRESETS[name]
        raw, labels = rows(test, 0)
        raw, labels = _some(raw, slice(settings.rows)), labels[: settings.rows]
        samples, _ = rows(train, 0)
        drawn = np.random.default_rng(0).permutation(len(samples["text"]))
        samples = _some(samples, drawn[:CALIBRATED])
        with tempfile.TemporaryDirectory() as folder:
            data, kept = (raw, labels, samples), pathlib.Path(folder)
            for kind, *numbers in measured(cls, PREFIX + name, data, kept):
                cells = (f"{number:.2f}" for number in numbers)
                row = " | ".join((f"`{PREFIX}{name}`", kind, *cells))
                print(f"| {row} |", flush=True)


def measured(cls, preset, data, folder):
    """Score, megabytes and milliseconds of each kind of a preset."""
    task, (raw, labels, samples) = cls.from_preset(preset), data
    if cls is kbt.BridgeTowerVQA:
        labels = np.array([task.answers.index(a) for a in labels])
    x, samples = _features(task, raw), _features(task, samples)
    task.save_to_preset(folder / "float32")
    yield "float32", *_numbers(_of_keras(task), x, labels, folder / "float32")
    if keras.config.backend() == "torch":
        for form, file in (("onnx", "model.onnx"), ("openvino", "model.xml")):
            task.export(folder / form, format=form, calibration=samples)
            run = _of_file(folder / form / file)
            yield f"{form} int8", *_numbers(run, x, labels, folder / form)
    # Keras searches for garbage after each layer.
    gc.freeze()
    quantizers = keras.quantizers
    for kind, config in {
        "int8 weights": quantizers.Int8QuantizationConfig(None, None),
        "int8": quantizers.Int8QuantizationConfig(),
        "int4": quantizers.Int4QuantizationConfig(),
    }.items():
        task = cls.from_preset(preset)
        task.quantize(config=config)
        task.save_to_preset(folder / kind)
        run = _of_keras(cls.from_preset(folder / kind))
        yield f"Keras {kind}", *_numbers(run, x, labels, folder / kind)


def _some(raw, rows):
    return {"images": raw["images"][rows], "text": list(raw["text"][rows])}


def _features(task, raw):
    made = task.preprocess_samples(raw)
    return {k: np.asarray(made[k]) for k in task.input}


def _numbers(run, x, labels, folder):
    rows = range(0, len(labels), BATCH)
    logits = [run({k: v[i : i + BATCH] for k, v in x.items()}) for i in rows]
    right = np.concatenate(logits).argmax(-1) == labels
    one = {k: v[:1] for k, v in x.items()}
    seconds = []
    for _ in range(TIMED):
        # In one thread this is the time on an idle machine.
        start = time.process_time()
        run(one)
        seconds.append(time.process_time() - start)
    weights = [
        path.stat().st_size
        for path in folder.iterdir()
        if path.suffix in (".h5", ".onnx", ".bin", ".xml")
    ]
    return (
        100 * right.mean(),
        sum(weights) / MEGABYTE,
        1000 * statistics.median(seconds[5:]),
    )


def _of_keras(task):
    return lambda x: task.predict_features(x, batch_size=BATCH)


def _of_file(path):
    run, _ = runtime.load(path, threads=1)
    return lambda x: next(iter(run(x).values()))


if __name__ == "__main__":
    main()
