"""Add the words of new texts to the vocabulary of a trained preset.

A `<mask>` is one token, so a word fills a blank only if it is one token. Old
tokens keep their ids and embeddings, old texts their tokens.
"""

import collections
import json
import pathlib
import warnings

import tokenizers

import keras_bridgetower as kbt
from keras_bridgetower.preprocessing import tokenizer as tokenizer_files
from keras_bridgetower.preprocessing.tokenizer import MERGES_FILE
from keras_bridgetower.preprocessing.tokenizer import VOCABULARY_FILE


def add_merges(vocabulary, merges, texts, size):
    """Continue learning a byte-level BPE vocabulary on other texts."""
    vocabulary, merges = dict(vocabulary), list(merges)
    counts, spell = words(texts), model(vocabulary, merges)
    spelled = {word: spell(word) for word in counts}
    while len(vocabulary) < size:
        pairs = collections.Counter()
        for word, pieces in spelled.items():
            for pair in zip(pieces, pieces[1:], strict=False):
                pairs[pair] += counts[word]
        if not pairs:
            break
        # The alphabet decides between pairs that are equally frequent.
        pair = min(pairs, key=lambda pair: (-pairs[pair], pair))
        merges.append(" ".join(pair))
        vocabulary.setdefault("".join(pair), len(vocabulary))
        spelled = {
            word: merged(pieces, pair) for word, pieces in spelled.items()
        }
    return vocabulary, merges


def with_more_words(cls, folder, texts, size, sequence_length, **values):
    """Return a task of a preset, with the words of texts in its vocabulary."""
    with warnings.catch_warnings():
        # A new head is intended.
        warnings.simplefilter("ignore", UserWarning)
        old = cls.from_preset(folder)
    files = add_merges(*read(folder), texts, size)
    return grown(old, *files, sequence_length, **values)


def read(folder):
    files = pathlib.Path(folder, "assets", "tokenizer")
    merges = tokenizer_files.read_merges(files / MERGES_FILE)
    vocabulary = json.loads((files / VOCABULARY_FILE).read_text())
    return vocabulary, list(map(" ".join, merges))


def grown(old, vocabulary, merges, sequence_length, **values):
    """Return a copy of a task with more tokens, whose rows are untrained."""
    kept = old.preprocessor
    settings = _settings(kept, "tokenizer", "image_converter") | values
    preprocessor = type(kept)(
        kbt.BridgeTowerTokenizer(vocabulary, merges, sequence_length),
        kept.image_converter,
        **settings,
    )
    config = old.backbone.get_config()
    config["text_encoder"]["config"]["vocabulary_size"] = len(vocabulary)
    task = type(old)(
        kbt.BridgeTowerBackbone.from_config(config),
        preprocessor,
        **_settings(old, "backbone", "preprocessor"),
    )
    for new, trained in zip(task.weights, old.weights, strict=True):
        # Weights with a row for each token are longer now.
        values = new.numpy().copy()
        values[tuple(map(slice, trained.shape))] = trained.numpy()
        new.assign(values)
    return task


def _settings(made, *without):
    """Return the config of an object, without its parts and Keras' own."""
    without = {*without, "name", "trainable", "dtype", "config_file"}
    return {k: v for k, v in made.get_config().items() if k not in without}


def model(vocabulary, merges):
    model = tokenizers.models.BPE(
        vocabulary, [tuple(merge.split(" ")) for merge in merges]
    )
    return lambda word: [token.value for token in model.tokenize(word)]


def words(texts):
    split = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False)
    return collections.Counter(
        word for text in texts for word, _ in split.pre_tokenize_str(text)
    )


def merged(pieces, pair):
    """Return the pieces of a word, with each occurrence of a pair joined."""
    made = []
    for piece in pieces:
        if made and (made[-1], piece) == pair:
            made[-1] += piece
        else:
            made.append(piece)
    return made
