"""Objectives of matching: which image-text pairs are drawn from a batch.

An objective draws the pairs, gives their labels, and computes their logits.
The layers below take the pairs from the global batch of all replicas.
"""

import keras
import numpy as np
from keras import ops

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.fusion import with_weight
from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.models.heads import fuse_pairs
from keras_bridgetower.objectives.losses import pack_embeddings

# Labels of a matching head.
NO_MATCH, MATCH = 0, 1
FALSE_TEXTS = 15
# In place of a number from 0 to 1: `DrawSamples` does not replace the sample.
ITSELF = -1.0


class Objective:
    """Abstract: draws pairs of a batch's images and texts, and scores them.

    The preprocessor calls `draw`, which uses NumPy. The task calls `logits`,
    which uses tensors. Both are methods of one object, so that they agree.
    """

    # The heads that score pairs, with their numbers of classes; None for one
    # without. The last logit of the first head scores the match of a pair.
    widths = {"itm": 2}
    # Heads whose weights are fixed: only layers below learn from their loss.
    fixed = ()
    # True if the task can also learn pairs with labels from the data set.
    takes_labels = False
    # Features that `draw` adds: name to dtype and shape for one sample.
    drawn = {}
    # Dtype and shape of the labels of one sample.
    labels = ("int32", ())

    @property
    def heads(self):
        """Names of the heads that score pairs, a tuple."""
        return tuple(self.widths)

    def draw(self, seed, ids):
        """Draw features and labels.

        Args:
            seed: seed for `np.random.default_rng`.
            ids: int array `(batch,)`, image ids. Images and texts of equal
                ids match.

        Returns:
            tuple of arrays: the features of `drawn` in their order, then the
            labels.
        """

    def targets(self, labels, features):
        """Return a dict from the name of each head to its labels.

        Args:
            labels: labels of the first head, as `draw` returns them.
            features: dict of the drawn features and `"image_id"`.
        """
        names = {"itc": "image_id", "itm": "match"}
        others = {name: features[names[name]] for name in self.heads[1:]}
        return {self.heads[0]: labels, **others}

    def specs(self, batch):
        """List the dtypes and shapes of the results of `draw`.

        Args:
            batch: tuple `(batch,)`, the shape of the image ids.
        """
        return [
            (dtype, (*batch, *shape))
            for dtype, shape in (*self.drawn.values(), self.labels)
        ]

    def logits(self, fuse, heads, text, image, features, embeddings=None):
        """Compute the logits of the drawn pairs.

        Args:
            fuse: callable that takes text states, image states and padding
                mask and returns what the matching head reads, and
                the pooled representation.
            heads: mapping from name to head.
            text: list of float tensors `(batch, tokens, width)`, tower states.
            image: list of float tensors `(batch, tokens, width)`.
            features: dict of tensors: `"padding_mask"` and the drawn features.
            embeddings: `(text, image, factor)` of the contrastive head, if
                the objective has one, else None.

        Returns:
            `(logits, pooled)`: a dict from the name of each head that scores
            pairs to a float tensor, and the pooled representation of the
            batch's true pairs, or None if they were not all fused.
        """


class RandomNegatives(Objective):
    """Half of the texts keep their image, the others get the next image.

    If the next sample has the same image id, the pair is a match. The next
    sample is taken from the global batch, of which a process may draw only a
    part. The sample after the last text is then unknown, so the last text
    always keeps its image.

    Source: matching in pre-training. Images of other samples replace the
    authors' `false_image_0`, so that each image is encoded once.
    """

    takes_labels = True
    drawn = {"match": ("int32", ())}

    def draw(self, seed, ids):
        match = np.zeros(len(ids), "int32")
        order = np.random.default_rng(seed).permutation(len(ids) - 1)
        match[order[: len(ids) // 2 - 1]] = MATCH
        match[:-1][ids[:-1] == ids[1:]] = MATCH
        match[-1] = MATCH
        return match, match

    def logits(self, fuse, heads, text, image, features, embeddings=None):
        # Not `==`, which compares symbolic tensors as objects.
        own = ops.equal(ops.reshape(features["match"], (-1, 1, 1)), MATCH)
        following = NextSample()
        image = [ops.where(own, x, following(x)) for x in image]
        read, _ = fuse(text, image, features["padding_mask"])
        return {"itm": heads["itm"](read)}, None


class HardNegatives(Objective):
    """Each true pair, its text with a similar image, and the reverse.

    Negatives are drawn from the global batch, with the softmax of the
    contrastive scores as probabilities. The preprocessor draws the random
    numbers, so that the pairs are the same on every backend and any number of
    devices. If all samples have the same image id, each draws itself, and the
    pair is a match.

    Source: `compute_itm_itc` and `compute_irtr_itm_itc` of BridgeTower with
    `gather_global_negative`.
    """

    widths = {"itm": 2, "itc": None}
    drawn = {"image_id": ("int32", ()), "negative_places": ("float32", (2,))}
    # The true pair; the text with another image; the image with another text.
    labels = ("int32", (3,))

    def draw(self, seed, ids):
        labels = np.full((len(ids), 3), NO_MATCH, "int32")
        labels[:, 0] = MATCH
        quantiles = np.random.default_rng(seed).random((len(ids), 2), "float32")
        if (ids == ids[0]).all():
            # The global batch may have other ids, which would not match.
            labels[:], quantiles[:] = MATCH, ITSELF
        return ids, quantiles, labels

    def logits(self, fuse, heads, text, image, features, embeddings=None):
        texts, images, factor = map(ops.stop_gradient, embeddings)
        ids, quantiles = (features[name] for name in self.drawn)
        draw_samples, take_samples = DrawSamples(), TakeSamples()
        other_image = draw_samples(texts * factor, images, ids, quantiles[:, 0])
        other_text = draw_samples(images * factor, texts, ids, quantiles[:, 1])

        def three_texts(x):
            return ops.concatenate([x, x, take_samples(x, other_text)])

        def three_images(x):
            return ops.concatenate([x, take_samples(x, other_image), x])

        read, pooled = fuse(
            [three_texts(x) for x in text],
            [three_images(x) for x in image],
            three_texts(features["padding_mask"]),
        )
        # The true pair, and those with another image and with another text.
        logits = ops.split(heads["itm"](read), 3)
        return {"itm": ops.stack(logits, axis=1)}, ops.split(pooled, 3)[0]


class Ranking(Objective):
    """Find the text of an image among this text and 15 false ones.

    False texts are texts of other samples, drawn with replacement if the
    batch has fewer than 16 samples. A text of the same image id is drawn only
    if there are no others.

    Source: `compute_irtr` of METER. BridgeTower's function of this name fails,
    because it concatenates tensors of unequal rank.
    """

    widths = {"rank": FALSE_TEXTS + 1}
    drawn = {"false_texts": ("int32", (FALSE_TEXTS,))}

    def draw(self, seed, ids):
        rng = np.random.default_rng(seed)
        distances = []
        for index, own in enumerate(ids):
            others = np.flatnonzero(ids != own)
            if not len(others):
                others = np.arange(len(ids))
            few = len(others) < FALSE_TEXTS
            drawn = rng.choice(others, FALSE_TEXTS, replace=few)
            # Distances stay correct when the batch is divided.
            distances.append(drawn - index)
        return np.array(distances, "int32"), np.zeros(len(ids), "int32")

    def logits(self, fuse, heads, text, image, features, embeddings=None):
        false = features["false_texts"]
        texts = ops.concatenate([ops.zeros_like(false[:, :1]), false], axis=1)
        take_samples = TakeSamples()
        _, pooled = fuse(
            [take_samples(x, texts) for x in text],
            [backend_ops.repeat_rows(x, FALSE_TEXTS + 1) for x in image],
            take_samples(features["padding_mask"], texts),
        )
        logits = heads["rank"](pooled)
        return {"rank": ops.reshape(logits, (-1, FALSE_TEXTS + 1))}, None


class RankingAndMatching(Ranking):
    """Ranking, and in addition matching with random negatives.

    Both losses have the same weight. The weights of the matching head are
    fixed; its loss trains the layers below it.

    Source: retrieval by `irtr` in the configurations of METER and
    BridgeTower. Their value `itm=0.5` is not a weight: any value above 0
    enables the loss.
    """

    widths = {**Ranking.widths, **RandomNegatives.widths}
    fixed = ("itm",)
    drawn = {**Ranking.drawn, **RandomNegatives.drawn}

    def draw(self, seed, ids):
        false_texts, labels = super().draw(seed, ids)
        match, _ = RandomNegatives().draw(seed, ids)
        return false_texts, match, labels

    def logits(self, fuse, heads, text, image, features, embeddings=None):
        batch = text, image, features
        ranked, _ = super().logits(fuse, heads, *batch)
        matched, _ = RandomNegatives().logits(fuse, heads, *batch)
        return ranked | matched, None


PAIR_OBJECTIVES = {
    "random_negatives": RandomNegatives,
    "hard_negatives": HardNegatives,
    "ranking": Ranking,
    "ranking_and_matching": RankingAndMatching,
}


def make_objective(name):
    """Create an objective by its name in `PAIR_OBJECTIVES`."""
    check_choice("objective", name, tuple(PAIR_OBJECTIVES))
    return PAIR_OBJECTIVES[name]()


def only_or_all(values):
    """Return the only value of a dict, or the dict if it has several.

    Tasks with one head have outputs and labels without a dict.

    Args:
        values: dict from the name of a head to its outputs or labels.
    """
    return values if len(values) > 1 else next(iter(values.values()))


class GlobalBatchLayer(keras.layers.Layer):
    """Abstract: a layer that reads the samples of all replicas.

    It does not cast its inputs.
    """

    def __init__(self, **kwargs):
        super().__init__(autocast=False, **kwargs)

    def gather(self, x):
        """Return the samples of all replicas, and the indices of `x`."""
        every, first = backend_ops.all_gather(x)
        return every, first + ops.arange(ops.shape(x)[0], dtype="int32")


class NextSample(GlobalBatchLayer):
    """Replace each sample by the next one of the global batch.

    The last sample is replaced by the first one.

    Call arguments:
        x: tensor `(batch, ...)`, the samples of this replica.

    Returns:
        Tensor of the shape of `x`.

    Example:

    ```python
    NextSample()(np.array([[1.0], [2.0], [3.0]]))  # [[2.0], [3.0], [1.0]]
    ```
    """

    def call(self, x):
        if keras.config.backend() == "jax":
            # Of arrays that are global, only this sends one sample a device.
            return ops.roll(x, -1, axis=0)
        # Only the first sample of each replica is sent to another one.
        firsts, own = backend_ops.all_gather(x[:1])
        following = firsts[(own + 1) % ops.shape(firsts)[0]]
        # Sliced after concatenation: exports of `x[1:]` would need a batch
        # above 2, and LiteRT has no roll.
        return ops.concatenate([x, following[None]], axis=0)[1:]

    def compute_output_spec(self, x):
        return keras.KerasTensor(x.shape, dtype=x.dtype)


class TakeSamples(GlobalBatchLayer):
    """Take samples of the global batch by their distance from each sample.

    Call arguments:
        x: tensor `(batch, ...)`, the samples of this replica.
        distances: int tensor `(batch, N)`. Distance 0 is the sample itself, 1
            the next one, -1 the one before. The first sample of the global
            batch follows the last one.

    Returns:
        Tensor `(batch * N, ...)`.

    Example:

    ```python
    TakeSamples()(np.array([[1.0], [2.0]]), np.array([[0, 1], [0, -1]]))
    # [[1.0], [2.0], [2.0], [1.0]]
    ```
    """

    def call(self, x, distances):
        every, own = self.gather(x)
        indices = own[:, None] + ops.cast(distances, "int32")
        indices = ops.mod(indices, ops.shape(every)[0])
        return ops.take(every, ops.reshape(indices, (-1,)), axis=0)

    def compute_output_spec(self, x, distances):
        return keras.KerasTensor((None, *x.shape[1:]), dtype=x.dtype)


class DrawSamples(GlobalBatchLayer):
    """Draw a similar sample of the global batch for each sample.

    The probabilities are the softmax of the products with all samples.
    Samples with the same id have probability 0, unless all have the same id.

    Call arguments:
        own: float tensor `(batch, width)`, embeddings of this replica.
        others: float tensor `(batch, width)`, the embeddings of this replica
            to draw from, such as those of the other modality.
        ids: int tensor `(batch,)`.
        quantiles: float tensor `(batch,)`, uniform from 0 to 1. The first
            sample whose cumulative probability exceeds this number is drawn.
            A sample with `ITSELF` is not replaced.

    Returns:
        int32 tensor `(batch, 1)`, distances for `TakeSamples`.

    Example:

    ```python
    own, others = 9.0 * np.eye(3), np.eye(3)[[0, 2, 1]]
    ids, quantiles = np.arange(3), np.full(3, 0.25)
    DrawSamples()(own, others, ids, quantiles)  # [[1], [1], [-1]]
    ```
    """

    def call(self, own, others, ids, quantiles):
        every, own_indices = self.gather(others)
        every_id, _ = backend_ops.all_gather(ids)
        scores = ops.cast(ops.matmul(own, ops.transpose(every)), "float32")
        same = ops.expand_dims(ids, 1) == ops.expand_dims(every_id, 0)
        # Keras' `softmax` would warn if there is a single sample.
        logs = ops.log_softmax(ops.where(same, -1e9, scores))
        sums = ops.cumsum(ops.exp(logs), axis=-1)
        itself = ops.cast(quantiles, "float32") < 0.0
        # Rounding must give neither an index above the last one nor a sample
        # of probability 0.
        quantiles = ops.minimum(ops.cast(quantiles, "float32"), 1 - 1e-6)
        quantiles = ops.expand_dims(quantiles, 1) * sums[:, -1:]
        drawn = ops.sum(ops.cast(sums <= quantiles, "int32"), axis=-1)
        return ops.where(itself, 0, drawn - own_indices)[:, None]

    def compute_output_spec(self, own, others, ids, quantiles):
        return keras.KerasTensor((own.shape[0], 1), dtype="int32")


def pair_outputs(names, objective, backbone, heads, text, image, inputs):
    """Compute the outputs of the matching and the contrastive head.

    Args:
        names: names of the heads to run, all in `objective.heads`.
        objective: `Objective`.
        backbone: a `BridgeTowerBackbone`.
        heads: mapping from name to head.
        text: list of float tensors, states of the text tower.
        image: list of float tensors, states of the image tower.
        inputs: dict of features, including those of `objective.drawn`.

    Returns:
        dict from the names of heads to logits of the drawn pairs, and from
        `"itc"` to a dict of embeddings of the true pairs.
    """

    def fuse(text, image, padding_mask):
        matching = heads["itm"] if "itm" in heads else None
        pairs = text, image, padding_mask
        return fuse_pairs(backbone.fusion, heads, matching, *pairs)

    outputs, pooled, scored = {}, None, None
    if "itc" in names:
        head = heads["itc"]
        vectors = contrastive_features(backbone.fusion, head.ways, text, image)
        embeddings = head(vectors)
        # The vectors only determine the graph of the factor.
        factor = with_weight(_factor, embeddings["text"], head.logit_scale)
        scored = embeddings["text"], embeddings["image"], factor
    if objective.heads[0] in names:
        outputs, pooled = objective.logits(
            *(fuse, heads, text, image, inputs, scored)
        )
    if "itc" in names:
        if "fused" in embedding_kinds(head.ways):
            if pooled is None:
                _, pooled = fuse(text, image, inputs["padding_mask"])
            embeddings |= head({"fused": pooled})
        outputs["itc"] = embeddings
    return outputs


def _factor(vectors, logit_scale):
    # Keras reads weights in half precision if the policy is.
    return ops.cast(ops.exp(logit_scale), "float32")


def with_packed(outputs, heads=None):
    """Return outputs with embeddings, if any, packed into one tensor.

    Args:
        outputs: the outputs of a task; embeddings are those of `"itc"`.
        heads: mapping from name to head, for losses; None for metrics.
    """
    if not isinstance(outputs, dict) or "itc" not in outputs:
        return outputs
    scale = 0.0 if heads is None else heads["itc"].logit_scale
    return {**outputs, "itc": pack_embeddings(outputs["itc"], scale)}
