"""What matching heads learn from a batch: which pairs, and their labels."""

import abc

import numpy as np
from keras import ops

from keras_bridgetower.checks import check_choice
from keras_bridgetower.matching.global_batch import DrawSamples
from keras_bridgetower.matching.global_batch import NextSample
from keras_bridgetower.matching.global_batch import TakeSamples

# Labels of a matching head.
NO_MATCH, MATCH = 0, 1
FALSE_TEXTS = 15


class Objective(abc.ABC):
    """Abstract: draws pairs of a batch's images and texts, and scores them.

    The draw is NumPy and belongs to the preprocessor, the scores are tensors
    and belong to the task; both are methods of one object so that they agree.
    """

    # Names of the heads that are asked; the last logit of the first one says
    # how well a pair matches.
    heads = ("itm",)
    # Whether pairs that come labelled can be learnt in place of drawn ones.
    takes_labels = False
    # Features that the draw adds: name to dtype and shape of a row.
    drawn = {}
    # Dtype and shape of a row of the labels, and from how many they choose.
    labels = ("int32", ())
    choices = 2

    @property
    def learning(self):
        """The heads that learn; others only teach what is below them."""
        return self.heads

    @property
    def widths(self):
        """How many logits the labels of each head choose from."""
        return {"itm": 2, "itc": None, self.heads[0]: self.choices}

    @abc.abstractmethod
    def draw(self, seed, ids):
        """Draw features and labels.

        Args:
            seed: what `np.random.default_rng` takes.
            ids: int array `(batch,)`, image ids; equal ids fit each other.

        Returns:
            The features of `drawn` in their order, then the labels.
        """

    def targets(self, labels, features):
        """The labels of each head that is asked.

        Args:
            labels: those of the first head, as `draw` returns them.
            features: dict of what was drawn, and `"image_id"`.
        """
        names = {"itc": "image_id", "itm": "match"}
        others = {name: features[names[name]] for name in self.heads[1:]}
        return {self.heads[0]: labels, **others}

    def specs(self, batch):
        """Dtypes and shapes of what `draw` returns, for `apply_numpy`."""
        return [
            (dtype, (*batch, *row))
            for dtype, row in (*self.drawn.values(), self.labels)
        ]

    @abc.abstractmethod
    def logits(self, fuse, heads, batch, embeddings=None):
        """Scores of the drawn pairs.

        Args:
            fuse: callable, from text states, image states and padding mask
                to the pooled representation.
            heads: mapping from name to head.
            batch: `Batch`.
            embeddings: `(text, image, factor)` of contrastive heads, where
                `heads` names them.

        Returns:
            `(logits, pooled)`: float tensor, and the pooled representation
            of the batch's own pairs, or None if they were not all fused.
        """

    def others(self, fuse, heads, batch):
        """Scores that further heads give to pairs of their own.

        Args:
            fuse, heads, batch: as `logits`.

        Returns:
            dict from the name of a head to a float tensor.
        """
        return {}


class Batch:
    """Tower states of a batch, and the features that come with it.

    Args:
        text: list of float tensors `(batch, tokens, width)`.
        image: list of float tensors `(batch, tokens, width)`.
        features: dict of tensors: `"padding_mask"`, and those that were
            drawn.
    """

    def __init__(self, text, image, features):
        self.text, self.image = text, image
        self.padding_mask = features["padding_mask"]
        self.features = features


class RandomNegatives(Objective):
    """Half of the texts keep their image, the others get the next row's.

    Rows whose neighbour has the same image id are matches in any case. The
    next row is that of the global batch: for several replicas draw before the
    batch is divided, as a `Stream` does.

    Source: matching in pre-training; the images of other rows stand for the
    authors' `false_image_0`, so that each image is encoded once.
    """

    takes_labels = True
    drawn = {"match": ("int32", ())}

    def draw(self, seed, ids):
        match = np.zeros(len(ids), "int32")
        order = np.random.default_rng(seed).permutation(len(ids))
        match[order[: len(ids) // 2]] = MATCH
        match[ids == np.roll(ids, -1)] = MATCH
        return match, match

    def logits(self, fuse, heads, batch, embeddings=None):
        own = ops.reshape(batch.features["match"], (-1, 1, 1)) == MATCH
        following = NextSample()
        image = [ops.where(own, x, following(x)) for x in batch.image]
        pooled = fuse(batch.text, image, batch.padding_mask)
        return heads["itm"](pooled), None


class HardNegatives(Objective):
    """Each pair, and for its text and its image a negative that looks alike.

    Negatives are drawn from the global batch by the softmax of the
    contrastive scores, at places that the preprocessor drew: the same pairs
    on every backend and any number of devices. Rows of the same image id are
    never drawn unless there is no other row, and then count as matches.

    Source: `compute_itm_itc` and `compute_irtr_itm_itc` of BridgeTower, as
    with `gather_global_negative`.
    """

    heads = ("itm", "itc")
    drawn = {"image_id": ("int32", ()), "negative_places": ("float32", (2,))}
    # The pair; the text with another image; the image with another text.
    labels = ("int32", (3,))

    def draw(self, seed, ids):
        labels = np.full((len(ids), 3), NO_MATCH, "int32")
        labels[:, 0] = MATCH
        if (ids == ids[0]).all():
            labels[:] = MATCH
        rng = np.random.default_rng(seed)
        return ids, rng.random((len(ids), 2), "float32"), labels

    def logits(self, fuse, heads, batch, embeddings=None):
        text, image, factor = map(ops.stop_gradient, embeddings)
        ids, places = (batch.features[name] for name in self.drawn)
        drawn, taken = DrawSamples(), TakeSamples()
        other_image = drawn(text * factor, image, ids, places[:, 0])
        other_text = drawn(image * factor, text, ids, places[:, 1])

        def of_text(x):
            return ops.concatenate([x, x, taken(x, other_text)])

        def of_image(x):
            return ops.concatenate([x, taken(x, other_image), x])

        pooled = fuse(
            [of_text(x) for x in batch.text],
            [of_image(x) for x in batch.image],
            of_text(batch.padding_mask),
        )
        own, with_image, with_text = ops.split(pooled, 3)
        logits = [heads["itm"](x) for x in (own, with_image, with_text)]
        return ops.stack(logits, axis=1), own


class Ranking(Objective):
    """Each image with its text and 15 false ones: which is the true one?

    False texts are those of other rows, drawn with replacement where the
    batch has fewer than 16; a row never gets a text of its own image id
    unless there is no other.

    Source: `compute_irtr` of METER; BridgeTower's own joins tensors of
    unequal rank.
    """

    heads = ("rank",)
    drawn = {"false_texts": ("int32", (FALSE_TEXTS,))}
    choices = FALSE_TEXTS + 1

    def draw(self, seed, ids):
        rng = np.random.default_rng(seed)
        distances = []
        for row, own in enumerate(ids):
            others = np.flatnonzero(ids != own)
            if not len(others):
                others = np.arange(len(ids))
            few = len(others) < FALSE_TEXTS
            drawn = rng.choice(others, FALSE_TEXTS, replace=few)
            # Counted from the row, they hold in any part of a batch.
            distances.append(drawn - row)
        return np.array(distances, "int32"), np.zeros(len(ids), "int32")

    def logits(self, fuse, heads, batch, embeddings=None):
        false = batch.features["false_texts"]
        texts = ops.concatenate([ops.zeros_like(false[:, :1]), false], axis=1)
        taken = TakeSamples()
        pooled = fuse(
            [taken(x, texts) for x in batch.text],
            [ops.repeat(x, FALSE_TEXTS + 1, axis=0) for x in batch.image],
            taken(batch.padding_mask, texts),
        )
        logits = heads["rank"](pooled)
        return ops.reshape(logits, (-1, FALSE_TEXTS + 1)), None


class RankingAndMatching(Ranking):
    """Ranking, and matching of random negatives beside it.

    The matching head stays as it is: its loss, which weighs as much, teaches
    what is below it.

    Source: retrieval by `irtr` in the configurations of METER and
    BridgeTower, whose `itm` of 0.5 is no weight: what is above 0 is learnt.
    """

    heads = ("rank", "itm")
    learning = ("rank",)
    drawn = {**Ranking.drawn, **RandomNegatives.drawn}

    def draw(self, seed, ids):
        false_texts, labels = super().draw(seed, ids)
        match, _ = RandomNegatives().draw(seed, ids)
        return false_texts, match, labels

    def others(self, fuse, heads, batch):
        return {"itm": RandomNegatives().logits(fuse, heads, batch)[0]}


PAIR_OBJECTIVES = {
    "random_negatives": RandomNegatives,
    "hard_negatives": HardNegatives,
    "ranking": Ranking,
    "ranking_and_matching": RankingAndMatching,
}


def get(name):
    """The objective of a name of `PAIR_OBJECTIVES`."""
    check_choice("objective", name, tuple(PAIR_OBJECTIVES))
    return PAIR_OBJECTIVES[name]()


def only_or_all(values):
    """The only value of a dict, or the dict, as losses and outputs are given.

    Args:
        values: dict from the name of a head to what belongs to it.
    """
    return values if len(values) > 1 else next(iter(values.values()))
