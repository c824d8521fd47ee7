"""Check the published weights against the published usage numbers.

    python tools/check_published.py --images COCO_VAL2017_FOLDER

For a machine that reaches the hub: fetches `bridgetower_base_itm_mlm` and
compares the match logits of two captions and the word behind a mask with the
numbers of its usage page. Offline it says what it would fetch.
"""

import argparse
import pathlib
import sys

import keras_bridgetower as kbt
from keras_bridgetower.presets import registry

PRESET = "bridgetower_base_itm_mlm"
MATCHING = "000000039769.jpg"
MATCHED = {
    "An image of two cats chilling on a couch": 4.8437,
    "A football player scoring a goal": -6.8970,
}
FILLING = "000000360943.jpg"
FILLED = "a <mask> looking out of the window", "cat"
TOLERANCE = 1e-2


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument(
        "--images", type=pathlib.Path, default=".", help="folder of val2017"
    )
    folder = parser.parse_args().images
    print(f"needed of COCO val2017 in {folder}: {MATCHING} and {FILLING}")
    try:
        retrieval = kbt.BridgeTowerRetrieval.from_preset(PRESET)
        filler = kbt.BridgeTowerMaskedLM.from_preset(PRESET)
    except ValueError as error:
        handle = registry.PRESETS[PRESET].handle
        sys.exit(f"would fetch {handle}, about 1.6 GB\n{error}")
    failed = 0
    scores = retrieval.match_logits(folder / MATCHING, list(MATCHED))
    for (text, expected), found in zip(MATCHED.items(), scores, strict=True):
        failed += abs(found - expected) > TOLERANCE
        print(f"{text!r}: {found:.4f}, published {expected:.4f}")
    text, expected = FILLED
    masks, _ = filler.fill_mask(folder / FILLING, text)
    found = masks[0][0][0].strip()
    failed += found != expected
    print(f"{text!r}: {found!r}, published {expected!r}")
    print("all numbers agree" if not failed else f"{failed} differ")
    sys.exit(int(failed))


if __name__ == "__main__":
    main()
