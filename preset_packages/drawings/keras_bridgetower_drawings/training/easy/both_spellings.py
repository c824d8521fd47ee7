r"""Teach a trained preset the other spelling of its words.

The spelling that was rarer in training becomes a token with the embedding of
the other one: "grey" is read as "gray". Texts of the training are understood
exactly as before, and the scores stay.

    python -m keras_bridgetower_drawings.training.easy.both_spellings \
        runs/spelled runs/tiny/bridgetower_tiny_easy_*
"""

import argparse
import collections
import json
import pathlib

from keras_bridgetower.tasks.by_name import open_task
from keras_bridgetower_drawings.training import low_precision
from keras_bridgetower_drawings.training.easy import captions
from keras_bridgetower_drawings.training.easy import entailment
from keras_bridgetower_drawings.training.easy import pairs
from keras_bridgetower_drawings.training.easy import pictures
from keras_bridgetower_drawings.training.easy import spelling
from keras_bridgetower_drawings.training.easy import tiny_training
from keras_bridgetower_drawings.training.easy import vocabulary
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

# A part of the page of a preset.
NOTE = """
Both spellings of a word (color and colour, gray and grey, center and centre,
disk and disc) share one embedding, so they get the same answers.
`training/easy/both_spellings.py` wrote that into the finished
weights, without further training: texts in the spelling of the training get
the answers, and the scores, that they got before.
"""


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("target", type=pathlib.Path)
    parser.add_argument("presets", nargs="+", type=pathlib.Path)
    settings = parser.parse_args()
    for old in settings.presets:
        known = open_task(old)
        texts = training_texts(old.name.split("_")[-1])
        task = with_both_spellings(known, old, texts)
        page = (old / "README.md").read_text()
        counts = known.count_params(), task.count_params()
        page = page.replace(*(f"{count:,} parameters" for count in counts))
        record = json.loads((old / "training.json").read_text())
        data = page.rindex("\nData: ")
        page = page[:data] + NOTE + page[data:]
        tiny_training.save(task, settings.target / old.name, record, page)
        low_precision.store(settings.target / old.name, 8)


def training_texts(name):
    if name == "vqa":
        return pictures.load("train").questions
    scenes = load_scenes("train")
    if name == "nlvr2":
        return pairs.pairs(scenes).sentences
    if name == "entailment":
        return [
            *entailment.entailment(scenes).hypotheses,
            *entailment.varied_entailment(scenes).hypotheses,
        ]
    if name == "mlm":
        return captions.varied_captions(scenes)
    return captions.captions(scenes).texts


def with_both_spellings(old, folder, texts, words=spelling.SPELLINGS):
    tokens, merges, alike = add_spellings(
        *vocabulary.read(folder), texts, words
    )
    kept = old.preprocessor.tokenizer
    task = vocabulary.grown(old, tokens, merges, kept.sequence_length)
    for weight in task.weights:
        if len(tokens) not in weight.shape:
            continue
        values = weight.numpy().copy()
        if weight.path.endswith("token_embedding/embeddings"):
            for new, known in alike.items():
                values[tokens[new]] = values[tokens[known]]
        else:
            # A head for blanks has not learned to write new tokens.
            never = kept.token_to_id("<unk>")
            values[..., kept.vocabulary_size() :] = values[..., [never]]
        weight.assign(values)
    return task


def add_spellings(tokens, merges, texts, words=spelling.SPELLINGS):
    tokens, merges, alike = dict(tokens), list(merges), {}
    counts = vocabulary.words(texts)
    spelled = {w: spelling.both(w, words) for w in counts}
    others = [word for word, ways in spelled.items() if len(ways) == 1]
    for ways in sorted({ways for ways in spelled.values() if len(ways) == 2}):
        known, new = sorted(ways, key=lambda way: -counts[way])
        spell = vocabulary.model(tokens, merges)
        apart = list(map(spell, others))
        one, two = spell(known), spell(new)
        for end in (0, -1):
            while min(len(one), len(two)) > 1 and one[end] == two[end]:
                del one[end], two[end]
        if len(one) > 1 or len("".join(two)) < 3:
            continue
        elsewhere = collections.Counter(
            pair
            for pieces in apart
            for pair in zip(pieces, pieces[1:], strict=False)
        )
        while len(two) > 1:
            # The pair that is rarest elsewhere.
            couples = zip(two, two[1:], strict=False)
            pair = min(couples, key=elsewhere.__getitem__)
            merges.append(" ".join(pair))
            tokens.setdefault("".join(pair), len(tokens))
            two = vocabulary.merged(two, pair)
        alike[two[0]] = one[0]
    return tokens, merges, alike


if __name__ == "__main__":
    main()
