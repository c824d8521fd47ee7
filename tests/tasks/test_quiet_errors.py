"""Errors of damaged pictures in `fit`, `evaluate` and `predict`."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import PIL.Image
from builders import slow_on

RUN = """
import gc
import sys
import builders
import keras
vqa = builders.fast(builders.vqa(**builders.one_layer_each()))
files = sys.argv[1:]
x = {"images": files, "text": ["what?"] * len(files)}
y = [builders.ANSWERS[0]] * len(files)
good = {key: values[:4] for key, values in x.items()}
data = {"batch_size": 2, "verbose": 0}
check = {"validation_data": (x, y), "validation_batch_size": 2}
last = {key: values[2:] for key, values in x.items()}
several = 1 if keras.config.backend() == "torch" else 2


def in_one_execution():
    vqa.compile(vqa.optimizer, steps_per_execution=several)
    vqa.evaluate(last, y[2:], **data)


calls = [
    lambda: vqa.fit(x, y, shuffle=False, **data),
    lambda: vqa.fit(good, y[:4], **check, **data),
    lambda: vqa.evaluate(x, y, **data),
    lambda: vqa.predict(x, **data),
    in_one_execution,
]
vqa.fit(good, y[:4], **data)
vqa.predict(good, **data)
gc.collect()
assert "_HeldIterators" not in {type(one).__name__ for one in gc.get_objects()}
print("---", file=sys.stderr)
for call in calls:
    try:
        call()
    except ValueError as error:
        print(error, file=sys.stderr)
    print(int(vqa.optimizer.iterations), file=sys.stderr)
"""


@slow_on("jax", "torch")
def test_damaged_picture_is_one_line_of_error(tmp_path):
    """TensorFlow would log its own error, of two names of operations.

    What came before the picture is trained on, what comes after is not.
    """
    files = [str(tmp_path / f"{i}.png") for i in range(6)]
    rng = np.random.default_rng(0)
    for file in files:
        pixels = rng.integers(0, 256, (40, 40, 3), "uint8")
        PIL.Image.fromarray(pixels).save(file)
    content = pathlib.Path(files[5]).read_bytes()
    pathlib.Path(files[5]).write_bytes(content[: len(content) // 2])
    env = os.environ | {"TF_CPP_MIN_LOG_LEVEL": "0"}
    run = subprocess.run(
        [sys.executable, "-c", RUN, *files],
        env=env | {"PYTHONPATH": os.pathsep.join(sys.path)},
        capture_output=True,
        text=True,
        check=True,
    )
    _, _, after = run.stderr.partition("---\n")
    lines = after.splitlines()
    assert len(lines) == 10, after
    assert all("images[1]" in line for line in lines[::2])
    assert [*map(int, lines[1::2])] == [4, 6, 6, 6, 6]
