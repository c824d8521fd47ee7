r"""Score the emoji presets, with guessing and blind baselines beside them.

    PYTHONPATH=examples python -m emoji_world.score runs/emoji

prints tables and writes `scores.json` into the folder. Scores choose nothing.
"""

import argparse
import collections
import json
import pathlib

import numpy as np

import keras_bridgetower as kbt
from emoji_world import baselines
from emoji_world import colors
from emoji_world import gallery
from emoji_world import questions
from emoji_world import score_pairs
from emoji_world import texts
from emoji_world import world
from emoji_world.training import teacher
from emoji_world.training.run import WHOLE
from emoji_world.training.run import Run

SEED = 5
DESCRIPTIONS = pathlib.Path(__file__).parent / "descriptions.json"


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("--preset", help="another preset than the run's")
    settings = parser.parse_args()
    run = Run(settings.folder, 0)
    preset = settings.preset or run.folder / WHOLE
    task = kbt.BridgeTowerContrastive.from_preset(preset)
    shown = {artist: _embedded(run, task, artist) for artist in world.ARTISTS}
    found = {
        "search": search(run, task, shown),
        "descriptions": free(run, task, shown),
        "vqa": answers(run, preset),
        "matching": score_pairs.match(
            run,
            preset,
            shown,
            lambda asked: task.embed(texts=asked, batch_size=256),
            SEED,
        ),
        "masked words": score_pairs.fill(run, preset, shown, SEED),
    }
    for name, table in found.items():
        print(f"\n{name}")
        for row, numbers in table.items():
            print(f"  {row}: {numbers}")
    (run.folder / "scores.json").write_text(json.dumps(found, indent=2))


def _embedded(run, task, artist):
    """The `Gallery` of an artist, and the vectors of its pictures."""
    shown = gallery.Gallery(run.world, run.splits.looks, artist)
    return shown, task.embed(images=shown.pictures, batch_size=128)


def search(run, task, shown):
    """Texts that training never read, for drawings of each artist."""
    found = {}
    for artist, (pictures, images) in shown.items():
        for kind, (asked, wanted) in _queries(run, pictures).items():
            scores = task.embed(texts=asked, batch_size=256) @ images.T
            numbers = pictures.recalls(scores, wanted)
            if kind == "names":
                owners = [next(iter(looks)) for looks in wanted]
                here = np.isin(pictures.looks, owners)
                numbers |= gallery.text_recalls(
                    scores[:, here], owners, pictures.looks[here]
                )
            found[f"{artist}, {kind}"] = numbers | {"texts": len(asked)}
            found[f"{artist}, {kind}, guessing"] = pictures.chance(wanted)
    return found


def _queries(run, shown):
    """Texts by kind, with the looks that are right for each."""
    rng = np.random.default_rng(SEED)
    looks, out = run.splits.looks, run.splits.held_out
    found = collections.defaultdict(lambda: ([], []))

    def add(kind, text, wanted):
        found[kind][0].append(text)
        found[kind][1].append(wanted)

    for place, number in enumerate(shown.numbers):
        emoji = run.world[number]
        kind = "emoji never seen" if out[number] else "names"
        add(kind, texts.ask_anew(emoji.name, place), {looks[number]})
        words = texts.words_of(emoji, run.splits)
        if not out[number] and len(words) > 1:
            first, second = rng.permutation(words)[:2]
            add("two keywords", f"{first} {second}", {looks[number]})
    for word in sorted(run.splits.held_out_words):
        right = {
            looks[number]
            for number in shown.numbers
            if word in run.world[number].keywords
        }
        if right:
            add("words never seen", word, right)
    return found


def free(run, task, shown):
    """The hundred descriptions in free words, beside searches in text."""
    rows = json.loads(DESCRIPTIONS.read_text(encoding="utf-8"))
    asked = [row["text"] for row in rows]
    looks = run.splits.looks
    by_symbol = {
        "".join(chr(int(c, 16)) for c in emoji.code.split("-")): number
        for number, emoji in enumerate(run.world)
    }
    wanted = [
        {looks[by_symbol[symbol]] for symbol in row["emoji"]} for row in rows
    ]
    vectors = task.embed(texts=asked, batch_size=100)
    found = {}
    for artist, (drawn, images) in shown.items():
        found[artist] = drawn.recalls(vectors @ images.T, wanted)
    every, _ = shown["noto"]
    found["guessing"] = every.chance(wanted)
    written = baselines.documents(run.world, lambda emoji: emoji.keywords)
    found["BM25 over names and keywords"] = every.recalls(
        baselines.keyword_scores(asked, written), wanted
    )
    names = [emoji.name for emoji in run.world]
    known = teacher.vectors([*asked, *names], run.packages["minilm"])
    known = known.astype("float32")
    found["MiniLM over names"] = every.recalls(
        known[: len(asked)] @ known[len(asked) :].T, wanted
    )
    student = task.embed(texts=names, batch_size=256)
    found["our text tower over names"] = every.recalls(
        vectors @ student.T, wanted
    )
    return found


def answers(run, preset):
    """Accuracy by type of question, beside the best guess without a look."""
    task = kbt.BridgeTowerVQA.from_preset(preset)
    guess = _blind_guesses(run)
    found = {}
    for artist in world.ARTISTS:
        rng = np.random.default_rng(SEED)
        kinds, pictures, asked, right, seen = [], [], [], [], []
        for number, emoji in enumerate(run.world):
            drawing = world.drawing(emoji, artist)
            if drawing is None:
                continue
            kind, text, answer = questions.question(
                emoji, colors.main_color(drawing), rng
            )
            kinds.append(kind)
            pictures.append(world.on_white(drawing))
            asked.append(text)
            right.append(answer)
            seen.append(not run.splits.held_out[number])
        given = task.answer(pictures, asked, top_k=1, batch_size=128)
        given = np.array([best[0][0] for best in given])
        blind = np.array([guess[text] for text in asked])
        right, kinds, seen = map(np.array, (right, kinds, seen))
        for name, rows in (("", seen), (", emoji never seen", ~seen)):
            numbers = _by_kind(given == right, kinds, rows)
            found[f"{artist}{name}"] = numbers
            found[f"{artist}{name}, blind"] = _by_kind(
                blind == right, kinds, rows
            )
    return found


def _by_kind(hit, kinds, rows):
    numbers = {
        kind: round(100 * float(hit[rows & (kinds == kind)].mean()), 1)
        for kind in questions.TYPES
        if (rows & (kinds == kind)).any()
    }
    return numbers | {"all": round(100 * float(hit[rows].mean()), 1)}


def _blind_guesses(run):
    """The commonest answer to each question in training."""
    rng = np.random.default_rng(SEED + 1)
    counts = collections.defaultdict(collections.Counter)
    for emoji, color, out in zip(
        run.world, run.colors, run.splits.held_out, strict=True
    ):
        for _ in range(0 if out else 20):
            _, text, answer = questions.question(emoji, color, rng)
            counts[text][answer] += 1
    guesses = collections.defaultdict(lambda: "no")
    for text, answers_of in counts.items():
        guesses[text] = answers_of.most_common(1)[0][0]
    return guesses


if __name__ == "__main__":
    main()
