"""Scores of all pictures with all texts: towers once, fusion in blocks."""

import contextlib
import dataclasses
import warnings

import keras
import numpy as np
from keras import ops

from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.preprocessing.verb_inputs import check_numbers
from keras_bridgetower.tasks.inference import filled
from keras_bridgetower.tasks.ranking.storage import BlockCache
from keras_bridgetower.tasks.ranking.storage import storage_key


def _batches(source, first, last, batch_size):
    """Yield features of the items `first` to `last - 1`, batch by batch."""
    for start in range(first, last, batch_size):
        yield source.features(start, min(start + batch_size, last))


def match_logit(logits):
    """Return the logits of "match", the last class."""
    return logits[:, -1]


def match_odds(logits):
    """Return the log-odds of "match", or of a ranking head its logits."""
    return match_logit(logits) - (logits[:, 0] if logits.shape[1] > 1 else 0)


def rank(
    task,
    images,
    texts,
    sizes,
    shortlist=None,
    cache_dir=None,
    verbose=0,
    score=match_logit,
):
    """Compute all scores, or those of a shortlist.

    Args:
        task: a `BridgeTowerRetrieval`.
        images: `Pictures`.
        texts: `Texts`.
        sizes: `Sizes`.
        shortlist, cache_dir, verbose: as `BridgeTowerRetrieval.rank`.
        score: callable from logits `(pairs, classes)` to scores `(pairs,)`.

    Returns:
        float32 array `(images, texts)`.
    """
    check_numbers([images])
    check_numbers([texts])
    task.new_heads.check("rank", task.answering_heads)
    if shortlist is not None:
        shortlist = checked_shortlist(
            task, shortlist, images.count, texts.count
        )
    plan = sizes.plan(images.count, texts.count, again=shortlist is not None)
    cache = None
    if cache_dir is not None:
        key = storage_key(
            task,
            _batches(images, 0, images.count, sizes.batch_size),
            _batches(texts, 0, texts.count, sizes.batch_size),
            shortlist=shortlist,
            batch_size=sizes.batch_size,
            block=[plan.pictures, plan.texts],
        )
        cache = BlockCache(cache_dir, key)
    scores = np.empty((images.count, texts.count), "float32")
    left = []
    for number, first in enumerate(range(0, images.count, plan.pictures)):
        rows = slice(first, min(first + plan.pictures, images.count))
        found = cache and cache.load(number)
        if found is None:
            left.append((number, rows))
        else:
            scores[rows] = found
    if left:
        blocks = _Blocks(task, images, texts, sizes, plan, shortlist, score)
        with contextlib.closing(blocks):
            blocks.expect([rows for _, rows in left], verbose)
            for number, rows in left:
                scores[rows] = blocks.scores(rows)
                if cache:
                    cache.save(number, scores[rows])
    return scores


class _Blocks:
    """Computes scores by blocks of pictures.

    Args:
        task, images, texts, sizes, shortlist, score: as `rank`.
        plan: `Plan`.
    """

    def __init__(self, task, images, texts, sizes, plan, shortlist, score):
        self.parts, self.score = ranking_parts(task), score
        self.images, self.texts = images, texts
        self.sizes, self.plan = sizes, plan
        self.text_block = {}
        self.image_states = None
        self.chosen = np.broadcast_to(True, (images.count, texts.count))
        with contextlib.ExitStack() as opened:
            self.text_states = plan.texts_in(texts.count, sizes.text_shape)
            opened.enter_context(contextlib.closing(self.text_states))
            embeddings = self._encode_all(
                self.parts.text, texts, self.text_states
            )
            if shortlist is not None:
                self.image_states = plan.pictures_in(
                    images.count, sizes.image_shape
                )
                opened.enter_context(contextlib.closing(self.image_states))
                near = self._encode_all(
                    self.parts.image, images, self.image_states
                )
                self.chosen = shortlisted(
                    np.concatenate(near), np.concatenate(embeddings), shortlist
                )
            self.open_states = opened.pop_all()

    def _encoded(self, part, source, first, last):
        """Yield `(first of a batch, outputs of a tower)` for some items."""
        size = self.sizes.batch_size
        for features in _batches(source, first, last, size):
            rows = len(next(iter(features.values())))
            made = part({k: filled(x, size) for k, x in features.items()})
            yield (
                first,
                {k: ops.convert_to_numpy(x)[:rows] for k, x in made.items()},
            )
            first += rows

    def _encode_all(self, part, source, states):
        """Write the states of all items, and return their embeddings."""
        embeddings = []
        for first, made in self._encoded(part, source, 0, source.count):
            states.write(first, made["states"])
            embeddings.append(made.get("embeddings"))
        return embeddings

    def close(self):
        """Remove the files of states."""
        self.open_states.close()

    def expect(self, blocks, verbose):
        """Start a progress bar of the blocks' pairs."""
        pairs = sum(int(self.chosen[rows].sum()) for rows in blocks)
        self.bar = keras.utils.Progbar(pairs, verbose=verbose, unit_name="pair")

    def scores(self, rows):
        """Compute the scores of a block.

        Args:
            rows: slice, the pictures.

        Returns:
            float32 array `(pictures, texts)`.
        """
        image = ops.convert_to_tensor(
            filled(self._load_states(rows), self.plan.pictures)
        )
        scores = np.full(
            (rows.stop - rows.start, self.texts.count), NOT_SCORED, "float32"
        )
        for first in range(0, self.texts.count, self.plan.texts):
            columns = slice(
                first, min(first + self.plan.texts, self.texts.count)
            )
            chosen = self.chosen[rows, columns]
            places = np.flatnonzero(chosen)
            if not len(places):
                continue
            inputs = {"image": image, **self._load_texts(columns)}
            for start in range(0, len(places), self.sizes.batch_size):
                batch = places[start : start + self.sizes.batch_size]
                row, column = np.divmod(batch, chosen.shape[1])
                inputs["image_rows"], inputs["text_rows"] = (
                    filled(x.astype("int32"), self.sizes.batch_size)
                    for x in (row, column)
                )
                logits = ops.convert_to_numpy(self.parts.pairs(inputs))
                scores[row, first + column] = self.score(logits[: len(batch)])
                self.bar.add(len(batch))
        return scores

    def _load_states(self, rows):
        if self.image_states is not None:
            return self.image_states.read(rows)
        states = np.empty(
            (rows.stop - rows.start, *self.sizes.image_shape), "float32"
        )
        for first, made in self._encoded(
            self.parts.image, self.images, rows.start, rows.stop
        ):
            first -= rows.start
            states[first : first + len(made["states"])] = made["states"]
        return states

    def _load_texts(self, columns):
        """Return tensors of a block of texts; the last block is kept."""
        if columns.start not in self.text_block:
            # Let go of the other block before this one is read.
            self.text_block = {}
            made = self.texts.features(columns.start, columns.stop)
            self.text_block[columns.start] = {
                name: ops.convert_to_tensor(filled(x, self.plan.texts))
                for name, x in (
                    ("text", self.text_states.read(columns)),
                    ("padding_mask", made["padding_mask"]),
                )
            }
        return self.text_block[columns.start]


class Part(keras.Model):
    """A model that runs a function of a task's layers.

    Args:
        task: whose layers are used.
        function: callable from a dict of tensors to tensors.
    """

    def __init__(self, task, function):
        super().__init__(dtype=task.dtype_policy)
        self.backbone, self.heads = task.backbone, task.heads
        self.function = function

    def call(self, inputs, training=None):
        return self.function(inputs)


class Parts:
    """The towers and the fusion of a task, each compiled alone.

    If the task has contrastive heads, the towers return embeddings besides
    their states, even when nothing reads them. They cost little next to a
    tower, and so one compiled version is enough.

    Args:
        task: a `BridgeTowerRetrieval`.
    """

    def __init__(self, task):
        backbone, fusion = task.backbone, task.backbone.fusion

        def encoded(kind, states, typed):
            made = {"states": ops.cast(ops.stack(typed, axis=1), "float32")}
            if "itc" in task.heads:
                features = contrastive_features(
                    fusion, task.ways, **{kind: states}
                )
                made["embeddings"] = task.heads["itc"](features)[kind]
            return made

        def text(inputs):
            states = backbone.text_tower(inputs)
            return encoded("text", states, fusion.project_text(states))

        def image(inputs):
            states = backbone.image_tower(inputs["images"])
            return encoded("image", states, fusion.project_image(states))

        def pairs(inputs):
            def of_pairs(name, rows):
                return ops.take(inputs[name], inputs[rows], axis=0)

            def states(name, rows):
                x = ops.cast(of_pairs(name, rows), fusion.compute_dtype)
                return ops.unstack(x, x.shape[1], axis=1)

            pooled = fusion.join(
                states("text", "text_rows"),
                states("image", "image_rows"),
                of_pairs("padding_mask", "text_rows"),
                ("pooled",),
            )["pooled"]
            (head,) = task.answering_heads
            return task.heads[head](pooled)

        self.text, self.image, self.pairs = (
            task.inference.forward("rank", Part(task, function))
            for function in (text, image, pairs)
        )


def ranking_parts(task):
    """Return the parts of a task, compiled once until its layers change."""
    return task.inference.cached("rank", lambda: Parts(task))


# Logit of the pairs that a shortlist leaves out.
NOT_SCORED = -100.0
# Similarities that are sorted at a time: some tens of MB.
_SORTED = 1_000_000


def shortlisted(images, texts, k):
    """The k texts nearest to each image and the k images nearest to each text.

    The authors score both lists, -100 elsewhere, and take the maximum: the
    score of a pair that is in either list.

    Args:
        images: float array `(N, width)`, unit vectors.
        texts: float array `(M, width)`, unit vectors.
        k: int.

    Returns:
        bool array `(N, M)`.

    Example:

    ```python
    shortlisted(np.eye(3), np.eye(3), k=1).sum()  # 3
    ```

    Source: `compute_irtr_itm_itc_recall` of BridgeTower.
    """
    chosen = np.zeros((len(images), len(texts)), bool)
    _choose(chosen, images, texts, k)
    _choose(chosen.T, texts, images, k)
    return chosen


def _choose(chosen, queries, candidates, k):
    step = max(1, _SORTED // len(candidates))
    for first in range(0, len(queries), step):
        near = queries[first : first + step] @ candidates.T
        best = np.argsort(-near, axis=1, kind="stable")[:, :k]
        np.put_along_axis(chosen[first : first + step], best, True, axis=1)


def checked_shortlist(task, k, images, texts):
    """Return the length of a shortlist, at most that of the pool.

    Args:
        task: a `BridgeTowerRetrieval`.
        k: int.
        images, texts: int, how many there are.

    Returns:
        int.

    Raises:
        ValueError: the task has no contrastive heads, or random ones.
    """
    if task.projection_dim is None:
        raise ValueError(
            "`shortlist` must be None without contrastive heads; use a task "
            "with `projection_dim`. "
            f"Received: shortlist={k}, projection_dim=None"
        )
    task.new_heads.check("rank", ("itc",))
    if k > min(images, texts):
        warnings.warn(
            f"shortlist={k} is longer than the pool of {images} images and "
            f"{texts} texts, and clamped to it.",
            stacklevel=4,
        )
    return min(k, max(images, texts))


@dataclasses.dataclass(frozen=True)
class TopMatches:
    """The best matches, in both directions.

    Args:
        images: list with one entry for each text: a list of
            `(index of an image, match logit)`, the best first.
        texts: list with one entry for each image: a list of
            `(index of a text, match logit)`, the best first. Pairs that a
            shortlist left out are in neither.
    """

    images: list
    texts: list


def top_matches(scores, top_k):
    """Return the best matches of a matrix of scores.

    Args:
        scores: float array `(images, texts)`.
        top_k: int, how many of each row and column; fewer where there are
            no more.

    Returns:
        `TopMatches`.

    Example:

    ```python
    scores = np.array([[0.9, 0.1], [0.3, 0.8], [0.7, 0.2]])
    top_matches(scores, top_k=1).images  # [[(0, 0.9)], [(1, 0.8)]]
    ```
    """

    def best(row):
        order = np.argsort(-row, kind="stable")[:top_k].tolist()
        return [(i, float(row[i])) for i in order if row[i] > NOT_SCORED]

    return TopMatches(
        images=[best(column) for column in scores.T],
        texts=[best(row) for row in scores],
    )
