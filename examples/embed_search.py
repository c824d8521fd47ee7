"""Title: Search pictures by text, and classify them, in one space
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Embeds a thousand pictures once, searches them with captions, and
    classifies them by embedding a sentence for each class, without any
    training for it.
Accelerator: none; one minute on one CPU core

    python examples/embed_search.py
    python examples/embed_search.py --query "a large red circle in the north."

Runs offline; needs `pip install easy-vqa matplotlib`.
"""

import itertools

import example
import numpy as np
from easy_world import captions as easy_vqa_captions
from easy_world.scenes import ATTRIBUTES
from easy_world.scenes import load_scenes

import keras_bridgetower as kbt

SHOWN = 6
PROMPT = easy_vqa_captions.TEMPLATES[0]


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--query", action="append", help="may be repeated")
    parser.add_argument("--preset", default="bridgetower_tiny_easy_contrastive")
    parser.add_argument("--pictures", type=int, default=1000)
    arguments = parser.parse_args()

    model = kbt.BridgeTowerContrastive.from_preset(arguments.preset)
    scenes = load_scenes("test")
    images = scenes.data.images[: arguments.pictures]
    groups = scenes.groups[: arguments.pictures]
    index = model.embed(images=images, batch_size=100)
    print(f"{len(index)} pictures embedded, {index.shape[1]} numbers each")

    captions = easy_vqa_captions.captions(scenes)
    # One caption of each picture, the templates in turn.
    pictures = np.arange(len(images))
    templates = pictures % len(easy_vqa_captions.TEMPLATES)
    rows = pictures * len(easy_vqa_captions.TEMPLATES) + templates
    texts = [captions.texts[row] for row in rows]
    search(model, index, texts, groups)

    queries = arguments.query or texts[: 5 * SHOWN : SHOWN]
    cosines = model.embed(texts=queries) @ index.T
    whole = {text: groups[i] for i, text in enumerate(texts)}
    rows = []
    for text, cosine in zip(queries, cosines, strict=True):
        fits = groups == whole.get(text)
        best = np.argsort(-cosine)[:SHOWN]
        hits = [(images[i], f"cosine {cosine[i]:.2f}", fits[i]) for i in best]
        rows.append((text, hits))
    figure = example.rows_of_hits(rows, "Nearest pictures; green: it fits")
    caption = f"the first {SHOWN} hits of {len(queries)} texts"
    example.save(figure, arguments.output, "hits.png", caption)

    for attribute in ("shape", "colour"):
        classify(model, index, scenes, attribute)


def nearest(index, queries, count):
    """Rows of the index with the largest cosine, best first."""
    return np.argsort(-(queries @ index.T), axis=1)[:, :count]


def search(model, index, texts, groups):
    """Print how often one of the first hits shows what the text says."""
    hits = nearest(index, model.embed(texts=texts, batch_size=100), 10)
    fits = groups[hits] == groups[:, None]
    fitting = (groups[:, None] == groups[None]).sum(axis=1)
    for k in (1, 5, 10):
        found = 100 * fits[:, :k].any(axis=1).mean()
        missed = [1 - fitting / (len(index) - drawn) for drawn in range(k)]
        chance = 100 * (1 - np.prod(missed, axis=0)).mean()
        print(
            f"search: {found:.1f} % of {len(texts)} texts find a picture that "
            f"fits in shape, colour, size and position among the first {k}; "
            f"chance: {chance:.1f} %"
        )


def classify(model, index, scenes, attribute):
    """Zero-shot: the class whose sentences lie nearest to the picture."""
    names = ATTRIBUTES[attribute]
    prototypes = []
    for name in names:
        # A class is the mean of sentences that differ in all else.
        sentences = [
            PROMPT.format(**dict(zip(ATTRIBUTES, words, strict=True)))
            for words in itertools.product(
                *({**ATTRIBUTES, attribute: (name,)}).values()
            )
        ]
        mean = model.embed(texts=sentences, batch_size=100).mean(axis=0)
        prototypes.append(mean / np.linalg.norm(mean))
    column = list(ATTRIBUTES).index(attribute)
    truth = scenes.values[: len(index), column]
    right = nearest(np.array(prototypes), index, 1)[:, 0] == truth
    majority = np.bincount(truth).max() / len(truth)
    print(
        f"zero-shot {attribute}: {100 * right.mean():.1f} % right; chance: "
        f"{100 / len(names):.1f} %, always the most frequent: "
        f"{100 * majority:.1f} %"
    )


if __name__ == "__main__":
    example.timed(main)
