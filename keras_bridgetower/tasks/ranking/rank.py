"""Scores of all pictures with all texts: towers once, fusion in blocks."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_bridgetower.tasks.inference import filled
from keras_bridgetower.tasks.ranking.block_cache import BlockCache
from keras_bridgetower.tasks.ranking.block_cache import NoCache
from keras_bridgetower.tasks.ranking.block_cache import key_of
from keras_bridgetower.tasks.ranking.compiled_parts import parts_of
from keras_bridgetower.tasks.ranking.shortlist import NOT_SCORED
from keras_bridgetower.tasks.ranking.shortlist import checked_shortlist
from keras_bridgetower.tasks.ranking.shortlist import shortlisted


def _batches(source, first, last, batch_size):
    """Features of the items from `first` to before `last`, batch by batch."""
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
    """All scores, or those of a shortlist, as `BridgeTowerRetrieval.rank`.

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
    task.new_heads.check("rank", task.answering_heads)
    if shortlist is not None:
        shortlist = checked_shortlist(
            task, shortlist, images.count, texts.count
        )
    plan = sizes.plan(images.count, texts.count, again=shortlist is not None)
    cache = NoCache()
    if cache_dir is not None:
        key = key_of(
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
        found = cache.load(number)
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
                cache.save(number, scores[rows])
    return scores


class _Blocks:
    """Scores by blocks of pictures.

    Args:
        task, images, texts, sizes, shortlist, score: as `rank`.
        plan: `Plan`.
    """

    def __init__(self, task, images, texts, sizes, plan, shortlist, score):
        self.parts, self.score = parts_of(task), score
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
        """What a tower makes of some items: `(first of a batch, outputs)`."""
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
        """Remove what waits in files."""
        self.open_states.close()

    def expect(self, blocks, verbose):
        """Show how many pairs the blocks hold."""
        pairs = sum(int(self.chosen[rows].sum()) for rows in blocks)
        self.bar = keras.utils.Progbar(pairs, verbose=verbose, unit_name="pair")

    def scores(self, rows):
        """Scores of a block.

        Args:
            rows: slice, the pictures.

        Returns:
            float32 array `(pictures, texts)`.
        """
        image = ops.convert_to_tensor(
            filled(self._states_of(rows), self.plan.pictures)
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
            inputs = {"image": image, **self._texts_of(columns)}
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

    def _states_of(self, rows):
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

    def _texts_of(self, columns):
        """Tensors of a block of texts; the last block is kept."""
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
