"""Scores of all pictures with all texts: towers once, fusion in blocks."""

import functools
import hashlib
import json
import math
import pathlib
import tempfile
import warnings

import keras
import numpy as np
from keras import ops

from keras_bridgetower.files import check_no_link
from keras_bridgetower.files import read_json
from keras_bridgetower.files import write_atomically
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.models.heads import tower_outputs
from keras_bridgetower.models.merged_tokens import merge_tokens
from keras_bridgetower.preprocessing.verb_inputs import check_numbers
from keras_bridgetower.tasks.inference import filled

# Pictures that are scored, and written, together if memory allows.
_PICTURES = 32
# Logit of the pairs that a shortlist leaves out.
NOT_SCORED = -100.0
# Similarities that are sorted at a time: some tens of MB.
_SORTED = 1_000_000
_KEY = "ranking.json"


def rank(
    task,
    images,
    texts,
    batch_size,
    max_memory,
    shortlist=None,
    cache_dir=None,
    verbose=0,
):
    """Compute all scores, or those of a shortlist.

    Args:
        task: a `BridgeTowerRetrieval`.
        images: `Pictures`.
        texts: `Texts`.
        batch_size, max_memory, shortlist, cache_dir, verbose: as
            `BridgeTowerRetrieval.rank`.

    Returns:
        float32 array `(images, texts)` of `match_scores`.
    """
    check_numbers([images])
    check_numbers([texts])
    task.new_heads.check("rank", task.answering_heads)
    if shortlist is not None:
        shortlist = _checked_shortlist(
            task, shortlist, images.count, texts.count
        )
    plan = Plan(
        *(task, images.count, texts.count, batch_size, max_memory),
        again=shortlist is not None,
    )
    cache = None
    if cache_dir is not None:
        weights = [*task.backbone.weights, *task.heads.weights]
        key = {
            "weights": _digest({"": w} for w in weights),
            "pictures": _digest(_batches(images, batch_size)),
            "texts": _digest(_batches(texts, batch_size)),
            "objective": task.objective,
            "image_tokens": task.backbone.fusion.image_tokens,
            # Bits differ by backend and precision.
            "backend": keras.config.backend(),
            "dtype": task.backbone.fusion.dtype_policy.name,
            "shortlist": shortlist,
            "batch_size": batch_size,
            "block": [plan.pictures, plan.texts],
            # Older caches hold the logits of "match" alone.
            "scores": "match minus no match",
        }
        cache = BlockCache(cache_dir, key)
    scores = np.empty((images.count, texts.count), "float32")
    bar = keras.utils.Progbar(
        images.count, verbose=verbose, unit_name="picture"
    )
    blocks = None
    for number, first in enumerate(range(0, images.count, plan.pictures)):
        rows = slice(first, min(first + plan.pictures, images.count))
        found = cache and cache.load(number)
        if found is None:
            if blocks is None:
                blocks = _Blocks(task, images, texts, plan, shortlist)
            found = blocks.scores(rows)
            if cache:
                cache.save(number, found)
        scores[rows] = found
        bar.update(rows.stop)
    return scores


class _Blocks:
    """Computes scores by blocks of pictures.

    Args:
        task, images, texts, shortlist: as `rank`.
        plan: `Plan`.
    """

    def __init__(self, task, images, texts, plan, shortlist):
        self.parts = ranking_parts(task)
        self.filled_rows = task.inference.filled_rows
        self.images, self.texts, self.plan = images, texts, plan
        self.image_states = None
        # The tensors of the last block of texts, by its first text.
        self.text_block = {}
        self.chosen = np.broadcast_to(True, (images.count, texts.count))
        self.text_states = _states(texts.count, plan.text_shape, plan.all_texts)
        embeddings = self._encode(self.parts.text, texts, self.text_states)
        if shortlist is not None:
            self.image_states = _states(
                images.count, plan.image_shape, plan.all_pictures
            )
            near = self._encode(self.parts.image, images, self.image_states)
            self.chosen = shortlisted(
                np.concatenate(near), np.concatenate(embeddings), shortlist
            )

    def _encode(self, part, source, states, first=0):
        """Write the states of items from `first` on; return embeddings."""
        embeddings, size = [], self.plan.batch_size
        last = first + len(states)
        for features in _batches(source, size, first, last):
            count = len(next(iter(features.values())))
            rows = self.filled_rows(count, size)
            made = part({k: filled(x, rows) for k, x in features.items()})
            made = {k: ops.convert_to_numpy(x)[:count] for k, x in made.items()}
            states[:count] = made["states"]
            states = states[count:]
            embeddings.append(made.get("embedding"))
        return embeddings

    def scores(self, rows):
        """Compute the scores of a block.

        Args:
            rows: slice, the pictures.

        Returns:
            float32 array `(pictures, texts)`.
        """
        count, size = rows.stop - rows.start, self.plan.batch_size
        if self.image_states is None:
            states = np.empty((count, *self.plan.image_shape), "float32")
            self._encode(self.parts.image, self.images, states, rows.start)
        else:
            states = np.asarray(self.image_states[rows])
        image = ops.convert_to_tensor(states)
        scores = np.full((count, self.texts.count), NOT_SCORED, "float32")
        for first in range(0, self.texts.count, self.plan.texts):
            columns = slice(first, first + self.plan.texts)
            chosen = self.chosen[rows, columns]
            places = np.flatnonzero(chosen)
            if not len(places):
                continue
            text = self._texts(columns)
            for start in range(0, len(places), size):
                batch = places[start : start + size]
                count = self.filled_rows(len(batch), size)
                batch = filled(batch.astype("int32"), count)
                row, column = np.divmod(batch, chosen.shape[1])
                pairs = {k: ops.take(x, column, 0) for k, x in text.items()}
                pairs["image"] = ops.take(image, row, axis=0)
                logits = ops.convert_to_numpy(self.parts.pairs(pairs))
                scores[row, first + column] = match_scores(logits)
            # The next block of texts replaces this one.
            del text
        return scores

    def _texts(self, columns):
        if columns.start not in self.text_block:
            # Free the other block before this one is read.
            self.text_block.clear()
            text = self.texts.features(columns.start, columns.stop)
            text["text"] = np.asarray(self.text_states[columns])
            self.text_block[columns.start] = {
                name: ops.convert_to_tensor(text[name])
                for name in ("text", "padding_mask")
            }
        return self.text_block[columns.start]


def _batches(source, size, first=0, last=None):
    """Yield features of the items `first` to `last - 1`, batch by batch."""
    last = source.count if last is None else last
    for start in range(first, last, size):
        yield source.features(start, min(start + size, last))


def _states(rows, shape, in_memory):
    """Return a float32 array for states, in memory or in a file.

    The file has no name, and is gone when the process ends in any way.
    """
    if in_memory:
        return np.empty((rows, *shape), "float32")
    with tempfile.TemporaryFile() as file:
        return np.memmap(file, "float32", "w+", shape=(rows, *shape))


class Parts:
    """The towers and the fusion of a task, each compiled alone.

    If the task has contrastive heads, the towers return embeddings, even when
    nothing reads them. They cost little next to a tower, and so one compiled
    version is enough.

    Args:
        task: a `BridgeTowerRetrieval`, or for its towers a
            `BridgeTowerContrastive`.
    """

    def __init__(self, task):
        backbone, fusion = task.backbone, task.backbone.fusion

        def text(inputs):
            states = backbone.text_tower(inputs)
            return tower_outputs(fusion, task.heads, "text", states)

        def image(inputs):
            states = backbone.image_tower(inputs["images"])
            return tower_outputs(fusion, task.heads, "image", states)

        def pairs(inputs, image_tokens=None):
            def states(name):
                x = ops.cast(inputs[name], fusion.compute_dtype)
                return ops.unstack(x, x.shape[1], axis=1)

            kept = states("image")
            if image_tokens is not None:
                kept = merge_tokens(kept, image_tokens)
            pooled = fusion.join(
                states("text"), kept, inputs["padding_mask"], ("pooled",)
            )["pooled"]
            (head,) = task.answering_heads
            return task.heads[head](pooled)

        self._task, self._of_pairs = task, pairs
        self.text, self.image, self.pairs = (
            task.inference.forward(function)
            for function in (text, image, pairs)
        )

    def merged_pairs(self, image_tokens):
        """Return `pairs` that merges the image tokens of each pair."""
        pairs = functools.partial(self._of_pairs, image_tokens=image_tokens)
        inference = self._task.inference
        return inference.cached(
            f"pairs of {image_tokens} tokens", lambda: inference.forward(pairs)
        )


def ranking_parts(task):
    """Return the parts of a task, compiled once until its layers change."""
    return task.inference.cached("rank", lambda: Parts(task))


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


def _checked_shortlist(task, k, images, texts):
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


class Plan:
    """Sizes of the blocks of states that are kept at a time.

    Args:
        task: a `BridgeTowerRetrieval`.
        pictures, texts: int, how many there are.
        batch_size: int, rows per forward pass.
        max_memory: int, bytes.
        again: bool, whether pictures are encoded before all are scored.

    Attributes:
        pictures, texts: int, of a block. There may be fewer of them.
        text_shape, image_shape: tuple, of the states of one.
        all_texts, all_pictures: bool, whether the states of all fit.

    Raises:
        ValueError: not even one picture and text fit.
    """

    def __init__(self, task, pictures, texts, batch_size, max_memory, again):
        fusion, tower = task.backbone.fusion, task.backbone.image_tower
        self.batch_size = batch_size
        tokens = task.needed_preprocessor().tokenizer.sequence_length
        patches, width = tower.outputs[-1].shape[1:]
        self.image_shape = task.image_states_shape
        taps, kept, _ = self.image_shape
        self.text_shape = (taps, tokens, fusion.hidden_dim)
        # Rows kept here are copied to the device too.
        text = 8 * math.prod(self.text_shape)
        image = 8 * math.prod(self.image_shape)
        pair = _work(kept + tokens, fusion.hidden_dim, fusion.num_heads)
        alone = 8 * math.prod(tower.inputs[0].shape[1:])
        alone += _work(patches, width, fusion.num_heads)
        # Gathered, or just made.
        work = batch_size * ((text + image) // 2 + max(pair, alone))
        free = max_memory - work
        if free < text + image:
            raise ValueError(
                f"`max_memory` must be at least {work + text + image} bytes, "
                f"or `batch_size` lower. Received: max_memory={max_memory}"
            )
        share = min(free // 2, free - image)
        self.texts = min(texts, max(1, share // text))
        self.all_texts = self.texts >= texts
        room = free - self.texts * text
        # Texts that wait in a file are read once for each block of pictures.
        few = self.all_texts or again
        block = min(pictures, _PICTURES) if few else pictures
        self.pictures = min(block, room // image)
        every = pictures * image // 2 + self.pictures * image
        self.all_pictures = every <= room


def _work(tokens, width, heads):
    """Estimate of what one row of a forward pass takes at its widest."""
    # Queries, keys, values, the hidden layer four times as wide, residuals,
    # of both modalities; and attention weights where nothing fuses them.
    return 4 * (20 * tokens * width + 2 * heads * tokens**2)


class BlockCache:
    """Stores each block's scores in a file, for one model and one pool.

    Args:
        folder: path; made if it is not there.
        key: dict of plain values that tells this ranking from any other.

    Raises:
        ValueError: the folder holds another ranking, or a damaged file.
    """

    def __init__(self, folder, key):
        self._folder = pathlib.Path(folder)
        check_no_link(self._folder, "`cache_dir`")
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / _KEY
        if not path.exists():
            text = json.dumps(key, indent=2) + "\n"
            write_atomically(path, lambda file: file.write(text.encode()))
        saved = _read(path, lambda path: dict(read_json(path)))
        other = sorted(k for k in key if saved.get(k) != key[k])
        if other:
            raise ValueError(
                "`cache_dir` must be empty or hold blocks of this call. "
                f"Received: {str(folder)!r}, which differs in {other}"
            )

    def load(self, block):
        """Return the scores of a block, or None if it is not finished."""
        path = self._path(block)
        if path.exists():
            return _read(path, np.load)
        return None

    def save(self, block, scores):
        """Store the scores of a finished block, completely or not at all."""
        write_atomically(self._path(block), lambda file: np.save(file, scores))

    def _path(self, block):
        return self._folder / f"block_{block:06}.npy"


def _read(path, reader):
    try:
        return reader(path)
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"`cache_dir` must hold no damaged file. Received: {str(path)!r}"
        ) from error


def _digest(rows):
    digest = hashlib.sha256()
    for row in rows:
        for name, x in row.items():
            x = np.ascontiguousarray(keras.ops.convert_to_numpy(x))
            digest.update(f"{name} {x.dtype} {x.shape}".encode())
            digest.update(x.view("uint8") if x.ndim else x.tobytes())
    return digest.hexdigest()
