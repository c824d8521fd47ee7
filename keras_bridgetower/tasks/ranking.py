"""Scores of all pictures with all texts: towers once, fusion in blocks."""

import hashlib
import json
import math
import pathlib
import tempfile
import types
import warnings

import keras
import numpy as np
from keras import ops

from keras_bridgetower import files
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower.models.exporting.exported import fusion_function
from keras_bridgetower.models.exporting.exported import tower_function
from keras_bridgetower.models.heads import SimilarityHead
from keras_bridgetower.preprocessing.preprocessor import shortened
from keras_bridgetower.preprocessing.verb_inputs import check_numbers
from keras_bridgetower.tasks.identity import model_checksum
from keras_bridgetower.tasks.inference import filled
from keras_bridgetower.tasks.keep_states import check_sources

# Pictures that are scored, and written, together if memory allows.
_PICTURES = 32
# Logit of the pairs that a shortlist leaves out.
NOT_SCORED = -100.0
# Similarities that are sorted at a time: some tens of MB.
_SORTED = 1_000_000
_KEY = "ranking.json"
# Tokens to which the texts of a block are cut, if their longest has no more.
_BUCKETS = (8, 16, 32, 64, 128, 256)


def rank(
    task,
    images,
    texts,
    batch_size,
    max_memory,
    shortlist=None,
    cache_dir=None,
    verbose=0,
    fusion=None,
):
    """Compute all scores, or those of a shortlist.

    Args:
        task: a `BridgeTowerRetrieval`.
        images: `Pictures`.
        texts: `Texts`.
        batch_size, max_memory, shortlist, cache_dir, verbose: as
            `BridgeTowerRetrieval.rank`.
        fusion: as `BridgeTowerRetrieval.score_states`.

    Returns:
        float32 array `(images, texts)` of `match_scores`.
    """
    check_numbers([images])
    check_numbers([texts])
    check_sources(task, [images, texts])
    task.new_heads.check("rank", task.answering_heads)
    if shortlist is not None:
        shortlist = _checked_shortlist(
            task, shortlist, images.count, texts.count
        )
    blocks = Blocks(task, images, texts, batch_size, max_memory, shortlist)
    folder = None
    if cache_dir is not None:
        key = {
            "weights": model_checksum(task),
            "pictures": _digest(images, batch_size),
            "texts": _digest(texts, batch_size),
            # Bits differ by backend and precision.
            "backend": keras.config.backend(),
            "dtype": task.backbone.fusion.dtype_policy.name,
            "shortlist": shortlist,
            "batch_size": batch_size,
            "block": [blocks.block_pictures, blocks.block_texts],
        }
        folder = open_cache(cache_dir, key)
    scores = np.empty((images.count, texts.count), "float32")
    bar = keras.utils.Progbar(
        images.count, verbose=verbose, unit_name="picture"
    )
    step = blocks.block_pictures
    for number, first in enumerate(range(0, images.count, step)):
        rows = slice(first, min(first + step, images.count))
        path = folder and folder / f"block_{number:06}.npy"
        if path and path.exists():
            scores[rows] = _read(path, np.load)
        else:
            scores[rows] = blocks.scores(rows, fusion)
            if path:
                _save(path, scores[rows])
        bar.update(rows.stop)
    return scores


class Blocks:
    """Computes scores by blocks of pictures, within a limit of memory.

    Nothing is encoded before the first block.

    Args:
        task: a `BridgeTowerRetrieval`.
        images: `Pictures`.
        texts: `Texts`.
        batch_size: int, rows per forward pass.
        max_memory: int, bytes.
        shortlist: int, as `rank`, or None. With it all pictures are encoded
            before any is scored.

    Attributes:
        block_pictures, block_texts: int, items of a block, or fewer.
        all_texts: bool, whether the states of all texts fit.

    Raises:
        ValueError: not even one picture and text fit.
    """

    def __init__(
        self, task, images, texts, batch_size, max_memory, shortlist=None
    ):
        self._task, self._shortlist = task, shortlist
        self._images, self._texts = images, texts
        self._batch_size = batch_size
        # States and vectors of all pictures; states of all texts.
        self._pictures = self._text_states = None
        # The tensors of the last block of texts, by its first text.
        self._text_block = {}
        fusion, tower = task.backbone.fusion, task.backbone.image_tower
        tokens = task.needed_preprocessor().tokenizer.sequence_length
        patches, width = tower.outputs[-1].shape[1:]
        kept = fusion.image_tokens or patches
        taps = sum(tap is not None for tap in fusion.taps)
        self._image_shape = (taps, kept, fusion.hidden_dim)
        self._text_shape = (taps, tokens, fusion.hidden_dim)
        # Rows kept here are copied to the device too.
        text = 8 * math.prod(self._text_shape)
        image = 8 * math.prod(self._image_shape)
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
        self.block_texts = min(texts.count, max(1, share // text))
        self.all_texts = self.block_texts >= texts.count
        room = free - self.block_texts * text
        # Texts that wait in a file are read once for each block of pictures.
        few = self.all_texts or shortlist is not None
        block = min(images.count, _PICTURES) if few else images.count
        self.block_pictures = min(block, room // image)
        every = images.count * image // 2 + self.block_pictures * image
        self._all_pictures = every <= room

    def _start(self):
        """Encode all texts, and with a shortlist all pictures."""
        count = self._images.count
        self._parts = ranking_parts(self._task)
        self._text_states, self._text_vectors = self._encode(
            *(self._parts.text, self._texts, slice(0, self._texts.count)),
            *(self._text_shape, self.all_texts),
        )
        self._chosen = np.broadcast_to(True, (count, self._texts.count))
        if self._shortlist is not None:
            self._pictures = self._encode(
                *(self._parts.image, self._images, slice(0, count)),
                *(self._image_shape, self._all_pictures),
            )
            self._chosen = shortlisted(
                self._pictures[1], self._text_vectors, self._shortlist
            )

    def _encode(self, part, source, rows, shape, in_memory=True):
        """Return the states of items, and their vectors, if there are some."""
        states = _states(rows.stop - rows.start, shape, in_memory)

        def features(start, stop):
            return source.features(rows.start + start, rows.start + stop)

        some = types.SimpleNamespace(count=len(states), features=features)
        given = part, [some], self._batch_size
        vectors, left = [], states
        for _, made in self._task.inference.in_batches(*given):
            count = len(made["states"])
            left[:count] = made["states"]
            left = left[count:]
            vectors += [made["embedding"]] if "embedding" in made else []
        return states, np.concatenate(vectors) if vectors else None

    def scores(self, rows, fusion=None):
        """Compute the scores of a block.

        Args:
            rows: slice, the pictures.
            fusion: as `rank`.

        Returns:
            float32 array `(pictures, texts)`.
        """
        if self._text_states is None:
            self._start()
        if self._pictures is None:
            states, vectors = self._encode(
                self._parts.image, self._images, rows, self._image_shape
            )
        else:
            states, vectors = (x[rows] for x in self._pictures)
        image = ops.convert_to_tensor(np.asarray(states))
        size, as_numpy = self._batch_size, ops.convert_to_numpy
        shape = len(states), self._texts.count
        scores = np.full(shape, NOT_SCORED, "float32")
        for first in range(0, self._texts.count, self.block_texts):
            columns = slice(first, first + self.block_texts)
            chosen = self._chosen[rows, columns]
            places = np.flatnonzero(chosen)
            if not len(places):
                continue
            text = self._block_of_texts(columns)
            for start in range(0, len(places), size):
                batch = places[start : start + size]
                count = self._task.inference.filled_rows(len(batch), size)
                batch = filled(batch.astype("int32"), count)
                row, column = np.divmod(batch, chosen.shape[1])
                pairs = {k: ops.take(x, column, 0) for k, x in text.items()}
                pairs["image_states"] = ops.take(image, row, axis=0)
                if self._parts.reads_similarity:
                    near = vectors[row] * self._text_vectors[first + column]
                    pairs["similarity"] = near.sum(-1)
                if fusion is not None:
                    pairs = keras.tree.map_structure(as_numpy, pairs)
                logits = as_numpy((fusion or self._parts.pairs)(pairs))
                scores[row, first + column] = match_scores(logits)
            # The next block of texts replaces this one.
            del text
        return scores

    def _block_of_texts(self, columns):
        if columns.start not in self._text_block:
            # Free the other block before this one is read.
            self._text_block.clear()
            text = self._texts.features(columns.start, columns.stop)
            mask = {"padding_mask": text["padding_mask"]}
            # Managers without a mask see padding.
            if not self._task.backbone.fusion.reads_padding:
                mask = shortened(mask, _BUCKETS)
            tokens = mask["padding_mask"].shape[1]
            states = np.asarray(self._text_states[columns, :, :tokens])
            self._text_block[columns.start] = {
                name: ops.convert_to_tensor(x)
                for name, x in {"text_states": states, **mask}.items()
            }
        return self._text_block[columns.start]


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
        task: a `BridgeTowerRetrieval`.
    """

    def __init__(self, task):
        (name,) = task.answering_heads
        fuse = fusion_function(task, task.backbone)
        forward = task.inference.forward
        self.reads_similarity = any(
            isinstance(task.heads[name], SimilarityHead) for name in task.heads
        )
        self.text = forward(tower_function("text", task, task.backbone))
        self.image = forward(tower_function("image", task, task.backbone))
        self.pairs = forward(lambda inputs: fuse(inputs)[f"{name}_logits"])


def ranking_parts(task):
    """Return the parts of a task, compiled once until its layers change."""
    return task.inference.cached("rank", lambda: Parts(task))


def shortlisted(images, texts, k):
    """Choose the k texts nearest to each image, and the k images to each text.

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
            stacklevel=5,
        )
    return min(k, max(images, texts))


def _work(tokens, width, heads):
    """Estimate the bytes of one row of a forward pass at its widest."""
    # Queries, keys, values, the hidden layer four times as wide, residuals,
    # of both modalities; and attention weights where nothing fuses them.
    return 4 * (20 * tokens * width + 2 * heads * tokens**2)


def open_cache(folder, key):
    """Return the folder that stores the scores of one ranking.

    Args:
        folder: path; created if it does not exist.
        key: dict of plain values that identifies the ranking.

    Raises:
        ValueError: the folder holds another ranking, or a damaged file.
    """
    folder = pathlib.Path(folder)
    files.check_no_link(folder, "`cache_dir`")
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / _KEY
    if not path.exists():
        text = json.dumps(key, indent=2) + "\n"
        files.write_atomically(path, lambda file: file.write(text.encode()))
    saved = _read(path, lambda path: dict(files.read_json(path)))
    other = sorted(k for k in key if saved.get(k) != key[k])
    if other:
        raise ValueError(
            "`cache_dir` must be empty or hold blocks of this call. "
            f"Received: {str(folder)!r}, which differs in {other}"
        )
    return folder


def _save(path, scores):
    """Store the scores of a finished block, completely or not at all."""
    files.write_atomically(path, lambda file: np.save(file, scores))


def _read(path, reader):
    try:
        return reader(path)
    except (ValueError, TypeError, EOFError) as error:
        raise ValueError(
            f"`cache_dir` must hold no damaged file. Received: {str(path)!r}"
        ) from error


def _digest(source, size):
    """Return the SHA-256 of all features of a source, read in batches."""
    digest = hashlib.sha256()
    for start in range(0, source.count, size):
        some = source.features(start, min(start + size, source.count))
        for name, x in some.items():
            x = np.ascontiguousarray(x)
            digest.update(f"{name} {x.dtype} {x.shape}".encode())
            digest.update(x)
    return digest.hexdigest()
