"""The works whose every turn is a process: its command, and the programs.

`python -m turns.starts LIBRARY FOLDER converted` opens a model once and prints
measurements as JSON, imports not counted. With `new` in place of `converted`,
this package finds no copy of the weights in its own format.
"""

import importlib
import json
import os
import sys
import tempfile
import time

from turns import samples
from turns.devices import forget_peak
from turns.devices import peak_bytes
from turns.works import MODULES

TOKENS = 32
# Programs as a user writes them, timed from the start of their process.
FIRST_SCORE = {
    "keras_bridgetower": """
import sys
import keras_bridgetower as kbt

folder, picture, text = sys.argv[1:]
task = kbt.BridgeTowerRetrieval.from_preset(folder)
score = task.match_logits(picture, text)
print('{"outputs": [[%.9g]]}' % score)
""",
    "transformers": """
import sys
import torch
from PIL import Image
from transformers import BridgeTowerForImageAndTextRetrieval
from transformers import BridgeTowerProcessor

folder, picture, text = sys.argv[1:]
device = "cuda" if torch.cuda.is_available() else "cpu"
processor = BridgeTowerProcessor.from_pretrained(folder)
model = BridgeTowerForImageAndTextRetrieval.from_pretrained(folder)
model = model.eval().to(device)
image = Image.open(picture).convert("RGB")
x = processor(image, text, return_tensors="pt").to(device)
with torch.inference_mode():
    score = model(**x).logits[0, 1].item()
print('{"outputs": [[%.9g]]}' % score)
""",
}


def program(saved, contender, code):
    """Return the command of a Python program: its code and three arguments."""
    values = saved.path(contender.file), saved.picture, samples.TEXT
    return [sys.executable, "-c", code, *map(str, values)]


def importing(saved, contender, module, name):
    """Return the command that imports a name."""
    code = f"from {module} import {name}\nprint('{{}}')"
    return program(saved, contender, code)


def first_score(saved, contender):
    return program(saved, contender, FIRST_SCORE[contender.library])


def loading(saved, contender, converted=True):
    command = [sys.executable, "-m", "turns.starts", contender.library]
    state = "converted" if converted else "new"
    return [*command, str(saved.path(contender.file)), state]


def measure(open_model, weights):
    """Load a model and run it once.

    `open_model` returns a callable from `features` to outputs, and the side of
    the pictures; `weights` the path of the weights. Gigabytes are the peak
    above the memory before; `loaded` is the peak before the first output.
    """
    before = forget_peak()
    started, processor = time.perf_counter(), time.process_time()
    run, side = open_model()
    # Before the first output, which also compiles.
    loaded = peak_bytes() - before
    run(samples.features(1, side, TOKENS))
    return {
        "seconds": time.perf_counter() - started,
        "processor seconds": time.process_time() - processor,
        "gigabytes": (peak_bytes() - before) / 1e9,
        "gigabytes loaded": loaded / 1e9,
        "loaded / weights": loaded / weights().stat().st_size,
    }


def main():
    library, folder, state = sys.argv[1:]
    with tempfile.TemporaryDirectory() as home:
        if state == "new":
            os.environ["KERAS_HOME"] = home
        module = importlib.import_module(f"turns.{MODULES[library]}")
        print(json.dumps(measure(*module.opener(folder))))


if __name__ == "__main__":
    main()
