"""Title: Teach a reranker from judged lists
Author: the keras_bridgetower maintainers
Date: 2026-11-30
Description: A matching head that knows captions as right or wrong learns from
    graded lists that to some people the color counts most, then the shape, and
    the place not at all. Prints nDCG@10 of a search, and of its lists after
    matching, before and after the training.
Accelerator: none; one minute on one CPU core

    python examples/finetune_reranker.py
    python examples/finetune_reranker.py --loss LambdaRankLoss

Runs offline; needs `pip install easy-vqa matplotlib`.
"""

import tempfile

import example
import keras
import numpy as np
from keras_bridgetower_drawings.training.easy.captions import TEMPLATES
from keras_bridgetower_drawings.training.easy.scenes import ATTRIBUTES
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

import keras_bridgetower as kbt

PRESET = "bridgetower_tiny_easy_retrieval"
LISTED = 50  # Pictures that the search finds for a caption.
LIST = 8  # Of these, in a list of training.


def main():
    parser = example.parser(__file__, __doc__)
    losses = ("ListwiseSoftmaxLoss", "LambdaRankLoss")
    parser.add_argument("--loss", choices=losses, default=losses[0])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--queries", type=int, default=240)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)
    rng = np.random.default_rng(arguments.seed)

    search = kbt.BridgeTowerContrastive.from_preset(
        "bridgetower_tiny_easy_contrastive"
    )
    taught = Gallery(search, "train", arguments.queries, rng)
    asked = Gallery(search, "test", 60, rng)

    before = asked.ndcg(kbt.BridgeTowerReranker.from_preset(PRESET))
    task = kbt.BridgeTowerListRanking.from_preset(PRESET, list_size=LIST)
    task.compile(keras.optimizers.Adam(2e-4), getattr(kbt, arguments.loss)())
    x, grades = taught.lists(rng)
    task.fit(x, grades, batch_size=16, epochs=arguments.epochs)
    with tempfile.TemporaryDirectory() as folder:
        task.save_to_preset(f"{folder}/reranker")
        reranker = kbt.BridgeTowerReranker.from_preset(f"{folder}/reranker")
    after = asked.ndcg(reranker)
    for name, found in (
        ("lists of the search", asked.ndcg()),
        ("after matching, as published", before),
        ("after matching, fine-tuned", after),
    ):
        print(f"nDCG@10, {name}: {found:.3f}")
    print(
        f"{len(asked.texts)} captions search {len(asked.images)} pictures of "
        f"the test split; seed {arguments.seed}"
    )
    example.save(
        asked.sheet(reranker),
        arguments.output,
        "reranked.png",
        "the best five of three captions, with their grades",
    )


class Gallery:
    """Pictures of a split, captions of some, and the lists of a search.

    A picture of the caption's color has the grade 2, and one of its shape 1
    more.
    """

    def __init__(self, search, split, count, rng, pictures=600):
        scenes = load_scenes(split)
        values = scenes.values[:pictures]
        self.images = scenes.data.images[:pictures]
        count = min(count, len(values))
        own = rng.choice(len(values), count, replace=False)
        ways = rng.integers(len(TEMPLATES), size=count)
        self.texts = [
            TEMPLATES[way].format(**scenes.words(row))
            for way, row in zip(ways, own, strict=True)
        ]
        same = values[own][:, None] == values
        shape, color = (list(ATTRIBUTES).index(x) for x in ("shape", "colour"))
        self.grades = 2 * same[..., color] + same[..., shape]
        found = search.embed(texts=self.texts, batch_size=100)
        index = search.embed(images=list(self.images), batch_size=100)
        self.listed = np.argsort(-found @ index.T, axis=1)[:, :LISTED]

    def lists(self, rng):
        """Draw a list of pictures for each caption, and their grades."""
        rows = np.array(
            [rng.choice(row, LIST, replace=False) for row in self.listed]
        )
        grades = np.take_along_axis(self.grades, rows, axis=1)
        kept = grades.any(axis=1)
        texts = [self.texts[i] for i in np.flatnonzero(kept)]
        x = {"images": self.images[rows[kept]], "text": texts}
        return x, grades[kept]

    def scores(self, reranker):
        texts = np.repeat(self.texts, LISTED).tolist()
        images = list(self.images[self.listed.ravel()])
        return reranker.task.score(images, texts, 100).reshape(-1, LISTED)

    def ndcg(self, reranker=None):
        """Return nDCG@10 of the search, reranked if a reranker is given."""
        found = -np.tile(
            np.arange(LISTED, dtype="float32"), (len(self.texts), 1)
        )
        if reranker is not None:
            found = self.scores(reranker)
        # Pictures that are not in a list come last.
        scores = np.full(self.grades.shape, found.min() - 1)
        np.put_along_axis(scores, self.listed, found, axis=1)
        metric = kbt.metrics.NDCG(k=10)
        metric.update_state(self.grades, scores)
        return float(metric.result())

    def sheet(self, reranker):
        cells = []
        for row in range(3):
            images = self.images[self.listed[row]]
            for found in reranker.rank(self.texts[row], list(images), top_k=5):
                place = found["corpus_id"]
                grade = self.grades[row, self.listed[row, place]]
                text = f"{self.texts[row]}\ngrade {grade}"
                cells.append(([images[place]], text, grade > 1))
        return example.contact_sheet(cells, 5, "Best five after matching")


if __name__ == "__main__":
    example.timed(main)
