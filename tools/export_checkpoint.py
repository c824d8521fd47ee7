"""Export a preset to a folder that `transformers` opens.

    python tools/export_checkpoint.py PRESET DST

PRESET is all that `from_preset` takes; every head that transformers knows
goes into one file, the others into head.safetensors beside it.
"""

import argparse
import pathlib
import sys

import numpy as np
import peer_check  # First: torch must be imported before TensorFlow.
import safetensors

from keras_bridgetower.convert import export
from keras_bridgetower.convert.transformers_folder import CLASSES


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("preset")
    parser.add_argument("destination")
    parser.add_argument(
        "--verify",
        action="store_true",
        help="run both on the same random input",
    )
    arguments = parser.parse_args()
    try:
        parts = export.parts_of_preset(arguments.preset)
        export.write(parts, arguments.destination)
    except ValueError as error:
        sys.exit(f"{type(error).__name__}: {error}")
    folder = pathlib.Path(arguments.destination)
    file = safetensors.safe_open(folder / export.WEIGHTS, framework="np")
    shapes = [file.get_slice(key).get_shape() for key in list(file.keys())]
    classes = [CLASSES[name] for name in parts.values if name in CLASSES]
    rows = [
        ("tensors", len(shapes)),
        ("parameters", f"{sum(int(np.prod(s)) for s in shapes):,}"),
        ("classes", ", ".join(classes) or "BridgeTowerModel"),
        ("processor files", "yes" if parts.tokenizer else "no tokenizer"),
    ]
    if arguments.verify:
        difference = peer_check.pooled_difference(parts.backbone, folder)
        rows.append(
            ("max |difference|", peer_check.difference_text(difference))
        )
    for name, value in rows:
        print(f"{name:20} {value}")


if __name__ == "__main__":
    main()
