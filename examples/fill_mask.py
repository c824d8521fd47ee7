"""Title: Fill the blanks of captions by looking at the pictures
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: One word of a caption is hidden, and the model finds it in the
    picture. Prints how often it is right, beside what is right without a look
    at the pictures.
Accelerator: none; half a minute on one CPU core

    python examples/fill_mask.py

Runs offline; needs `pip install easy-vqa matplotlib`. `keras-bridgetower fill`
fills the blanks of one caption.
"""

import example
import numpy as np
from easy_world.captions import BLIND_BLANKS
from easy_world.captions import blanks
from easy_world.scenes import load_scenes

import keras_bridgetower as kbt


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--pictures", type=int, default=150)
    arguments = parser.parse_args()

    model = kbt.BridgeTowerMaskedLM.from_preset("bridgetower_tiny_easy_mlm")
    scenes = load_scenes("test")
    asked = blanks(scenes)
    # Four blanks of each picture follow each other.
    count = 4 * arguments.pictures
    images = scenes.data.images[asked.image_index[:count]]
    filled = model.fill_mask(
        list(images), asked.texts[:count], top_k=3, batch_size=64
    )
    for text, (masks, _) in zip(asked.texts[:4], filled, strict=False):
        print(f"{text}  ->  {tokens_text(masks[0])}")

    words = [masks[0][0][0].strip() for masks, _ in filled]
    right = np.array(words) == asked.answers[:count]
    kinds = np.array(asked.kinds[:count])
    for kind, blind in BLIND_BLANKS.items():
        score = 100 * right[kinds == kind].mean()
        print(f"{kind}: {score:.1f} % right (pictures unseen: {blind} %)")
    blind = np.mean(list(BLIND_BLANKS.values()))
    print(
        f"mean: {100 * right.mean():.1f} % right (pictures unseen: "
        f"{blind:.1f} %), {len(right)} blanks of the test split"
    )

    # One blank of each picture, another attribute each time.
    rows = [4 * i + i % 4 for i in range(min(8, arguments.pictures))]
    cells = [
        ([images[i]], f"{asked.texts[i]}\n→ {filled[i][1]}", right[i])
        for i in rows
    ]
    sheet = example.contact_sheet(
        cells, 4, "Captions with a blank, and how it is filled"
    )
    caption = "captions and how they were filled"
    example.save(sheet, arguments.output, "filled.png", caption)


def tokens_text(tokens):
    return ", ".join(f"{token.strip()} {share:.3f}" for token, share in tokens)


if __name__ == "__main__":
    example.timed(main)
