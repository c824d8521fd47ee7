"""Title: Search pictures by text, and classify them, in one space
Author: the keras_bridgetower maintainers
Date: 2026-11-29
Description: Embeds two hundred drawings once, searches them with their names,
    and classifies some by embedding a sentence for each class, without any
    training for it.
Accelerator: none; half a minute on one CPU core

    python examples/embed_search.py
    python examples/embed_search.py --query "something to drink"

Runs offline; needs `pip install matplotlib`.
"""

import example
import numpy as np

import keras_bridgetower as kbt

SHOWN = 6
QUERIES = ("something to eat", "an animal with wings", "it makes music")
CLASSES = {
    "animal": "bear cow deer duck eagle giraffe goat octopus penguin rabbit",
    "food": "avocado croissant dumpling lemon mango pie sushi waffle",
    "vehicle": "ferry monorail sailboat taxi train tram",
}


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--query", action="append", help="may be repeated")
    arguments = parser.parse_args()

    model = kbt.BridgeTowerContrastive.from_preset(
        "bridgetower_tiny_emoji_contrastive"
    )
    drawings = example.drawings()
    names = list(drawings)
    index = model.embed(images=list(drawings.values()), batch_size=100)
    print(f"{len(index)} pictures embedded, {index.shape[1]} numbers each")

    texts = [f"here you see {name}" for name in names]
    cosines = model.embed(texts=texts, batch_size=100) @ index.T
    rank = (cosines > np.diag(cosines)[:, None]).sum(axis=1)
    for k in (1, 5, 10):
        print(
            f"search: {100 * np.mean(rank < k):.1f} % of {len(texts)} names "
            f"find their drawing among the first {k}; chance: "
            f"{100 * k / len(names):.1f} %"
        )

    cells = []
    queries = arguments.query or QUERIES
    for query in queries:
        cosine = index @ model.embed(texts=query)
        cells += [
            (
                [example.pixels(drawings[names[i]])],
                f"{query}\n{names[i]} {cosine[i]:.2f}",
                True,
            )
            for i in np.argsort(-cosine)[:SHOWN]
        ]
    sheet = example.contact_sheet(cells, SHOWN, "Nearest, with their cosines")
    caption = f"the first {SHOWN} hits of {len(queries)} texts"
    example.save(sheet, arguments.output, "hits.png", caption)

    sentences = model.embed(texts=[f"a drawing of {c}" for c in CLASSES])
    right = [
        place == np.argmax(sentences @ index[names.index(name)])
        for place, members in enumerate(CLASSES.values())
        for name in members.split()
    ]
    print(
        f"zero-shot: {100 * np.mean(right):.1f} % right (chance: "
        f"{100 / len(CLASSES):.1f} %), {len(right)} drawings"
    )


if __name__ == "__main__":
    example.timed(main)
