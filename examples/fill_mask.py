"""Title: Fill the blanks of captions by looking at the pictures
Author: the keras_bridgetower maintainers
Date: 2026-11-29
Description: The name of a drawing is hidden in its caption, and the model finds
    it in the picture. Prints how often it is right, beside what is right for a
    white picture.
Accelerator: none; half a minute on one CPU core

    python examples/fill_mask.py

Runs offline. `keras-bridgetower fill` fills the blanks of one caption.
"""

import example
import numpy as np

import keras_bridgetower as kbt


def main():
    arguments = example.parser(__file__, __doc__).parse_args()
    model = kbt.BridgeTowerMaskedLM.from_preset("bridgetower_tiny_emoji_mlm")
    tokenizer = model.preprocessor.tokenizer
    drawings = example.drawings()
    ids = tokenizer([f" {name}" for name in drawings])
    # A blank is one token: with the start and the end there are three.
    short = (ids != tokenizer.pad_token_id).sum(-1) == 3
    names = np.array([*drawings])[short].tolist()
    images = [example.pixels(drawings[name]) for name in names]
    texts = [
        f"a drawing of {'an' if name[0] in 'aeiou' else 'a'} <mask>"
        for name in names
    ]
    found = fill(model, images, texts)
    unseen = fill(model, [np.full_like(x, 255) for x in images], texts)
    for count in (1, 5):
        right, blind = (
            100
            * np.mean(
                [n in w[:count] for n, w in zip(names, words, strict=True)]
            )
            for words in (found, unseen)
        )
        print(
            f"among the first {count}: {right:.1f} % right (picture unseen: "
            f"{blind:.1f} %), {len(names)} names"
        )

    shown = np.linspace(0, len(names) - 1, 8).astype(int)
    cells = [
        ([images[i]], f"{texts[i]}\n→ {found[i][0]}", names[i] == found[i][0])
        for i in shown
    ]
    sheet = example.contact_sheet(
        cells, 4, "Captions with a blank, and how it is filled"
    )
    caption = "captions and how they were filled"
    example.save(sheet, arguments.output, "filled.png", caption)


def fill(model, images, texts):
    """Return the best words for the blank of each text."""
    filled = model.fill_mask(images, texts, top_k=5, batch_size=64)
    return [[word.strip() for word, _ in masks[0]] for masks, _ in filled]


if __name__ == "__main__":
    example.timed(main)
