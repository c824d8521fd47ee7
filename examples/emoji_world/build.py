r"""Build data sets of captions and of questions from the packages.

    PYTHONPATH=examples python -m emoji_world.build runs/emoji

fetches the packages, writes two tables with their pictures, as anybody's own
data are, and builds data sets of them: `data/captions` and `data/questions`.
`train` has the artists of training, `validation` the emoji that training
never sees, and `test` the artist that it never sees.
"""

import argparse
import json
import pathlib

import numpy as np
from PIL import Image

import keras_bridgetower as kbt
from emoji_world import colors
from emoji_world import questions
from emoji_world import texts
from emoji_world import world
from emoji_world.training.run import Run

OF_EACH = 8


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    folder = parser.parse_args().folder
    tables = folder / "tables"
    write_tables(Run(folder, 0), tables)
    for name in ("captions", "questions"):
        data = kbt.data.open_dataset("own", tables / name)
        for split in ("train", "validation", "test"):
            kbt.data.write_shards(
                folder / "data" / name,
                split,
                data.split(split),
                task=data.task,
                labels=data.labels,
                definition=data.definition(split).definition,
            )
        print(folder / "data" / name)


def write_tables(run, folder):
    """Write `captions` and `questions`, each with its pictures.

    Args:
        run: `Run`.
        folder: path of the new folder.
    """
    rng = np.random.default_rng(run.seed)
    rows = {"captions": {}, "questions": {}}
    for name in rows:
        (folder / name / "pictures").mkdir(parents=True)
    for number, emoji in enumerate(run.world):
        for artist in (*world.TRAINING_ARTISTS, world.UNSEEN_ARTIST):
            drawing = world.drawing(emoji, artist)
            split = _split(artist, run.splits.held_out[number])
            if drawing is None or split is None:
                continue
            image = f"pictures/{artist}_{emoji.code}.png"
            for name in rows:
                Image.fromarray(world.on_white(drawing)).save(
                    folder / name / image
                )
            color = colors.main_color(drawing)
            made = _texts(emoji, color, run.splits, split, rng)
            for name, told in made.items():
                rows[name].setdefault(split, []).extend(
                    {"image": image} | row for row in told
                )
    for name, tables in rows.items():
        for split, told in tables.items():
            lines = (json.dumps(row) + "\n" for row in told)
            (folder / name / f"{split}.jsonl").write_text("".join(lines))


def _split(artist, held_out):
    if artist == world.UNSEEN_ARTIST:
        return None if held_out else "test"
    return "validation" if held_out else "train"


def _texts(emoji, color, split_of_words, split, rng):
    captions = {texts.phrase(way, emoji.name) for way in texts.NEW_WAYS}
    if split == "train":
        captions = {
            texts.caption(emoji, color, split_of_words, rng)
            for _ in range(OF_EACH)
        }
    asked = {
        question: answer
        for _, question, answer in (
            questions.question(emoji, color, rng) for _ in range(OF_EACH)
        )
    }
    return {
        "captions": [{"text": text} for text in sorted(captions)],
        "questions": [
            {"text": text, "answer": answer} for text, answer in asked.items()
        ],
    }


if __name__ == "__main__":
    main()
