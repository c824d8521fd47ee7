"""Every picture against every text: towers once, fusion by blocks."""

import contextlib

import keras
import numpy as np
from keras import ops

from keras_bridgetower.tasks.ranking.block_cache import BlockCache
from keras_bridgetower.tasks.ranking.block_cache import NoCache
from keras_bridgetower.tasks.ranking.block_cache import key_of
from keras_bridgetower.tasks.ranking.compiled_parts import parts_of
from keras_bridgetower.tasks.ranking.shortlist import NOT_SCORED
from keras_bridgetower.tasks.ranking.shortlist import checked_shortlist
from keras_bridgetower.tasks.ranking.shortlist import shortlisted
from keras_bridgetower.tasks.verb_batches import filled


class _Items:
    """Pictures or texts, made into features batch by batch.

    Args:
        items: list.
        convert: callable from a list of them to a dict of arrays.
        batch_size: int.
    """

    def __init__(self, items, convert, batch_size):
        self.items, self.convert = items, convert
        self.batch_size = batch_size

    def __len__(self):
        return len(self.items)

    def __iter__(self):
        return self.batches(0, len(self))

    def batches(self, first, last):
        """Features of those from number `first` to before `last`."""
        for start in range(first, last, self.batch_size):
            stop = min(start + self.batch_size, last)
            yield self.convert(self.items[start:stop])

    def encoded(self, part, first, last):
        """Batches of what a tower makes: `(number, features, outputs)`."""
        for features in self.batches(first, last):
            rows = len(next(iter(features.values())))
            outputs = part(
                {k: filled(x, self.batch_size) for k, x in features.items()}
            )
            yield (
                first,
                features,
                {k: ops.convert_to_numpy(x)[:rows] for k, x in outputs.items()},
            )
            first += rows


def rank(task, images, texts, sizes, shortlist, cache_dir, verbose):
    """All scores, or those of a shortlist, as `BridgeTowerRetrieval.rank`.

    Args:
        task: a `BridgeTowerRetrieval`.
        images, texts: lists.
        sizes: `Sizes`.
        shortlist, cache_dir, verbose: as `BridgeTowerRetrieval.rank`.

    Returns:
        float32 array `(images, texts)`.
    """
    preprocessor = task.needed_preprocessor()
    task.new_heads.check("rank", task.answering_heads)
    images = _Items(
        images,
        lambda x: {"images": preprocessor.image_converter(x)},
        sizes.batch_size,
    )
    texts = _Items(texts, preprocessor.text_features, sizes.batch_size)
    if shortlist is not None:
        shortlist = checked_shortlist(task, shortlist, len(images), len(texts))
    plan = sizes.plan(len(images), len(texts), again=shortlist is not None)
    cache = NoCache()
    if cache_dir is not None:
        key = key_of(
            task,
            images,
            texts,
            shortlist=shortlist,
            batch_size=sizes.batch_size,
            block=[plan.pictures, plan.texts],
        )
        cache = BlockCache(cache_dir, key)
    scores = np.empty((len(images), len(texts)), "float32")
    left = []
    for number, first in enumerate(range(0, len(images), plan.pictures)):
        rows = slice(first, min(first + plan.pictures, len(images)))
        found = cache.load(number)
        if found is None:
            left.append((number, rows))
        else:
            scores[rows] = found
    if left:
        blocks = _Blocks(task, images, texts, sizes, plan, shortlist)
        with contextlib.closing(blocks):
            blocks.expect([rows for _, rows in left], verbose)
            for number, rows in left:
                scores[rows] = blocks.scores(rows)
                cache.save(number, scores[rows])
    return scores


class _Blocks:
    """Scores by blocks of pictures.

    Args:
        task, sizes, shortlist: as `rank`.
        images, texts: `_Items`.
        plan: `Plan`.
    """

    def __init__(self, task, images, texts, sizes, plan, shortlist):
        self.parts = parts_of(task)
        self.images, self.texts = images, texts
        self.sizes, self.plan = sizes, plan
        self.held = {}
        self.masks = np.empty((len(texts), sizes.text_shape[1]), "int32")
        self.image_states = None
        self.chosen = np.broadcast_to(True, (len(images), len(texts)))
        with contextlib.ExitStack() as opened:
            self.text_states = plan.texts_in(len(texts), sizes.text_shape)
            opened.enter_context(contextlib.closing(self.text_states))
            embeddings = self._encode_texts()
            if shortlist is not None:
                self.image_states = plan.pictures_in(
                    len(images), sizes.image_shape
                )
                opened.enter_context(contextlib.closing(self.image_states))
                self.chosen = shortlisted(
                    np.concatenate(self._encode_images()),
                    np.concatenate(embeddings),
                    shortlist,
                )
            self.opened = opened.pop_all()

    def _encode_texts(self):
        embeddings = []
        encoded = self.texts.encoded(self.parts.text, 0, len(self.texts))
        for first, features, made in encoded:
            self.text_states.write(first, made["states"])
            mask = features["padding_mask"]
            self.masks[first : first + len(mask)] = mask
            embeddings.append(made.get("embeddings"))
        return embeddings

    def _encode_images(self):
        embeddings = []
        encoded = self.images.encoded(self.parts.image, 0, len(self.images))
        for first, _, made in encoded:
            self.image_states.write(first, made["states"])
            embeddings.append(made["embeddings"])
        return embeddings

    def close(self):
        """Remove what waits in files."""
        self.opened.close()

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
            (rows.stop - rows.start, len(self.texts)), NOT_SCORED, "float32"
        )
        for first in range(0, len(self.texts), self.plan.texts):
            columns = slice(
                first, min(first + self.plan.texts, len(self.texts))
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
                scores[row, first + column] = logits[: len(batch)]
                self.bar.add(len(batch))
        return scores

    def _states_of(self, rows):
        if self.image_states is not None:
            return self.image_states.read(rows)
        states = np.empty(
            (rows.stop - rows.start, *self.sizes.image_shape), "float32"
        )
        for first, _, made in self.images.encoded(
            self.parts.image, rows.start, rows.stop
        ):
            first -= rows.start
            states[first : first + len(made["states"])] = made["states"]
        return states

    def _texts_of(self, columns):
        """Tensors of a block of texts; the last block stays at hand."""
        if columns.start not in self.held:
            # Let go of the other block before this one is read.
            self.held = {}
            self.held[columns.start] = {
                "text": _tensor(
                    self.text_states.read(columns), self.plan.texts
                ),
                "padding_mask": _tensor(self.masks[columns], self.plan.texts),
            }
        return self.held[columns.start]


def _tensor(x, rows):
    return ops.convert_to_tensor(filled(x, rows))
