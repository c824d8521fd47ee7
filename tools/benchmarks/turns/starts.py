"""Programs as a user writes them, whose whole process is timed.

Their arguments are the folder of a checkpoint, a picture file and a text.
"""

import sys

from turns.samples import TEXT

OURS = """
import sys
import keras_bridgetower as kbt

folder, picture, text = sys.argv[1:]
task = kbt.BridgeTowerRetrieval.from_preset(folder)
score = task.score(picture, text)
print('{"outputs": [[%.9g]]}' % score)
"""

TRANSFORMERS = """
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
"""


def command(contender, saved):
    """The command that runs a contender's `code`."""
    values = saved.path(contender.file), saved.picture, TEXT
    code = contender.settings["code"]
    return [sys.executable, "-c", code, *map(str, values)]
