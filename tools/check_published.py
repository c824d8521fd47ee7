"""Check the published weights against the published usage numbers.

    python tools/check_published.py --images COCO_VAL2017_FOLDER

For a machine that reaches the hub: fetches `bridgetower_base_itm_mlm` and
compares the match logits of two captions and the word behind a mask with the
numbers of its usage page. Offline it says what it would fetch.
"""

import argparse
import pathlib
import sys

import keras
import numpy as np

from keras_bridgetower.convert.export import parts_of_preset
from keras_bridgetower.presets import registry

PRESET = "bridgetower_base_itm_mlm"
MATCHING = (
    "000000039769.jpg",
    {
        "An image of two cats chilling on a couch": 4.8437,
        "A football player scoring a goal": -6.8970,
    },
)
FILLING = ("000000360943.jpg", "a <mask> looking out of the window", "cat")
TOLERANCE = 1e-2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("--images", default=".", help="folder of val2017")
    parser.add_argument("--preset", default=PRESET)
    arguments = parser.parse_args()
    folder = pathlib.Path(arguments.images)
    needed = [folder / name for name, *_ in (MATCHING, FILLING)]
    missing = [path.name for path in needed if not path.is_file()]
    if missing:
        print(f"needed from COCO val2017 in {folder}: {', '.join(missing)}")
    try:
        parts = parts_of_preset(arguments.preset)
    except ValueError as error:
        handle = registry.PRESETS[PRESET].handle
        sys.exit(f"would fetch {handle}, about 1.6 GB\n{error}")
    if missing:
        sys.exit("nothing compared")
    failed = check_matching(parts, needed[0]) + check_filling(parts, needed[1])
    print("all numbers agree" if not failed else f"{failed} differ")
    sys.exit(failed)


def features_of(parts, path, ids):
    ids = np.asarray(ids, "int32")[None]
    image = parts.image_converter(str(path))[None]
    return {
        "images": image,
        "token_ids": ids,
        "padding_mask": np.ones_like(ids),
    }


def check_matching(parts, path):
    failed = 0
    for text, expected in MATCHING[1].items():
        ids = parts.tokenizer(text)
        ids = ids[ids != parts.tokenizer.pad_token_id]
        features = features_of(parts, path, ids)
        pooled = parts.backbone.fuse(features, outputs=("pooled",))["pooled"]
        logits = keras.ops.convert_to_numpy(parts.heads["itm"](pooled))
        found = float(logits[0, 1])
        good = abs(found - expected) <= TOLERANCE
        failed += not good
        print(f"{text!r}: {found:.4f}, published {expected:.4f}")
    return failed


def check_filling(parts, path):
    _, text, expected = FILLING
    before, after = text.split("<mask>")
    tokenizer = parts.tokenizer
    # The mask takes the space before it, the words after it keep theirs.
    pieces = [list(tokenizer(part)) for part in (before.rstrip(), after)]
    pieces = [
        [i for i in ids if i not in tokenizer.special_token_ids]
        for ids in pieces
    ]
    ids = [
        tokenizer.start_token_id,
        *pieces[0],
        tokenizer.mask_token_id,
        *pieces[1],
        tokenizer.end_token_id,
    ]
    features = features_of(parts, path, ids)
    states = parts.backbone.fuse(features, outputs=("text",))["text"]
    logits = keras.ops.convert_to_numpy(parts.heads["mlm"](states))
    best = int(logits[0, len(pieces[0]) + 1].argmax())
    found = tokenizer.detokenize(np.array([best])).strip()
    print(f"{text!r}: {found!r}, published {expected!r}")
    return int(found != expected)


if __name__ == "__main__":
    main()
