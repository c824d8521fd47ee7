"""Score the emoji presets, beside guessing and blind baselines.

    python -m keras_bridgetower_drawings.training.emoji.score runs/emoji

prints tables and writes `scores.json` into the folder. Scores choose nothing.
"""

import collections
import json
import pathlib

import bm25s
import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import colors
from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import teacher
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji import world
from keras_bridgetower_drawings.training.emoji.run import WHOLE
from keras_bridgetower_drawings.training.emoji.run import Run

SEED = 5
DESCRIPTIONS = pathlib.Path(__file__).parent / "descriptions.json"


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--preset", help="another preset than the run's")
    settings = parser.parse_args()
    run = Run(settings.folder, 0)
    preset = settings.preset or run.folder / WHOLE
    task = kbt.BridgeTowerContrastive.from_preset(preset)
    shown = {artist: embedded(run, task, artist) for artist in world.ARTISTS}
    found = {
        "search": search(run, task, shown),
        "descriptions": free(run, task, shown),
        "vqa": answers(run, preset),
        "matching": match(run, task, preset, shown),
        "masked words": fill(run, preset, shown),
    }
    reports.write_scores(run.folder / "scores.json", found)


def embedded(run, task, artist):
    """Return the `Gallery` of an artist and the vectors of its pictures."""
    shown = Gallery(run.world, run.splits.looks, artist)
    return shown, task.embed(images=shown.pictures, batch_size=128)


KEPT = (1, 5, 10)


class Gallery:
    """All drawings of an artist, with their looks."""

    def __init__(self, emoji, looks, artist):
        drawn = [world.drawing(one, artist) for one in emoji]
        self.numbers = np.array(
            [n for n, drawing in enumerate(drawn) if drawing is not None]
        )
        self.pictures = [world.on_white(drawn[n]) for n in self.numbers]
        self.looks = np.asarray(looks)[self.numbers]

    def recalls(self, scores, wanted, kept=KEPT):
        hit = [
            np.isin(self.looks[row], list(looks))
            for row, looks in zip(_first(scores, kept), wanted, strict=True)
        ]
        return _recalls("IR", np.array(hit), kept)

    def chance(self, wanted, kept=KEPT):
        """Return the recalls of guesses: not all of the first are wrong."""
        count, found = len(self.looks), {}
        right = np.array([np.isin(self.looks, [*x]).sum() for x in wanted])
        for k in kept:
            wrong = np.maximum(count - right[:, None] - np.arange(k), 0)
            missed = np.prod(wrong / (count - np.arange(k)), axis=1)
            found[f"IR@{k}"] = reports.percent(1 - missed.mean(), 2)
        return found


def text_recalls(scores, looks_of_texts, looks, kept=KEPT):
    """Return the share of pictures with one of their texts among the first."""
    first = np.asarray(looks_of_texts)[_first(scores.T, kept)]
    return _recalls("TR", first == np.asarray(looks)[:, None], kept)


def _first(scores, kept):
    return np.argsort(-scores, axis=1, kind="stable")[:, : max(kept)]


def _recalls(name, hit, kept, digits=2):
    return {
        f"{name}@{k}": reports.percent(hit[:, :k].any(1), digits) for k in kept
    }


def search(run, task, shown):
    """Search each artist's drawings with texts that training never read."""
    found = {}
    for artist, (pictures, images) in shown.items():
        for kind, (asked, wanted) in _queries(run, pictures).items():
            scores = task.embed(texts=asked, batch_size=256) @ images.T
            numbers = pictures.recalls(scores, wanted)
            if kind == "names":
                owners = [next(iter(looks)) for looks in wanted]
                here = np.isin(pictures.looks, owners)
                numbers |= text_recalls(
                    scores[:, here], owners, pictures.looks[here]
                )
            found[f"{artist}, {kind}"] = numbers | {"texts": len(asked)}
            found[f"{artist}, {kind}, guessing"] = pictures.chance(wanted)
    return found


def _queries(run, shown):
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
        named = [n for n in shown.numbers if word in run.world[n].keywords]
        right = set(looks[named])
        if right:
            add("words never seen", word, right)
    return found


def descriptions(run):
    """Return the free descriptions, and the looks that each one means."""
    rows = json.loads(DESCRIPTIONS.read_text(encoding="utf-8"))
    looks = run.splits.looks
    by_symbol = {
        "".join(chr(int(c, 16)) for c in emoji.code.split("-")): number
        for number, emoji in enumerate(run.world)
    }
    wanted = [
        {looks[by_symbol[symbol]] for symbol in row["emoji"]} for row in rows
    ]
    return [row["text"] for row in rows], wanted


def free(run, task, shown):
    """Search with the hundred free descriptions, beside searches in text."""
    asked, wanted = descriptions(run)
    vectors = task.embed(texts=asked, batch_size=100)
    found = {}
    for artist, (drawn, images) in shown.items():
        found[artist] = drawn.recalls(vectors @ images.T, wanted)
    every, _ = shown["noto"]
    found["guessing"] = every.chance(wanted)
    written = [" ".join([one.name, *one.keywords]) for one in run.world]
    found["BM25 over names and keywords"] = every.recalls(
        keyword_scores(asked, written), wanted
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
    task = kbt.BridgeTowerVQA.from_preset(preset)
    guess = blind_guesses(run)
    found = {}
    for artist in world.ARTISTS:
        asked, kinds, seen, given, right = answered(run, task, artist)
        blind = np.array([guess[text] for text in asked])
        given = np.array([answer for answer, _ in given])
        for name, rows in (("", seen), (", emoji never seen", ~seen)):
            for suffix, said in (("", given), (", blind", blind)):
                numbers = _by_kind(said == right, kinds, rows)
                found[f"{artist}{name}{suffix}"] = numbers
    return found


def answered(run, task, artist):
    """Ask a question about each drawing of an artist.

    Returns the questions, their kinds, True for emoji of training, pairs of the
    best answer and its score, and the right answers.
    """
    rng = np.random.default_rng(SEED)
    rows, pictures = [], []
    for number, emoji in enumerate(run.world):
        drawing = world.drawing(emoji, artist)
        if drawing is not None:
            asked = questions.question(emoji, colors.main_color(drawing), rng)
            rows.append((*asked, not run.splits.held_out[number]))
            pictures.append(world.on_white(drawing))
    kinds, asked, right, seen = zip(*rows, strict=True)
    given = task.answer(pictures, list(asked), top_k=1, batch_size=128)
    kinds, seen, right = map(np.array, (kinds, seen, right))
    return asked, kinds, seen, [best[0] for best in given], right


def _by_kind(hit, kinds, rows):
    numbers = {
        kind: reports.percent(hit[rows & (kinds == kind)])
        for kind in questions.TYPES
        if (rows & (kinds == kind)).any()
    }
    return numbers | {"all": reports.percent(hit[rows])}


def blind_guesses(run):
    rng = np.random.default_rng(SEED + 1)
    counts = collections.defaultdict(collections.Counter)
    for emoji, color, out in zip(
        run.world, run.colors, run.splits.held_out, strict=True
    ):
        for _ in range(0 if out else 20):
            _, text, answer = questions.question(emoji, color, rng)
            counts[text][answer] += 1
    best = {text: c.most_common(1)[0][0] for text, c in counts.items()}
    return collections.defaultdict(lambda: "no", best)


def keyword_scores(queries, documents):
    """Compute the BM25 scores `(queries, documents)`."""
    queries, words = (
        bm25s.tokenize(texts, return_ids=False, show_progress=False)
        for texts in (queries, documents)
    )
    index = bm25s.BM25()
    index.index(words, show_progress=False)
    known = [[w for w in query if w in index.vocab_dict] for query in queries]
    none = np.zeros(len(documents))
    return np.stack([index.get_scores(q) if q else none for q in known])


ASKED = 300
SEARCHED = 16  # The pictures that a search by vectors hands on to matching.
BEST = (1, 5)
BLANK = "a drawing of {article}<mask>"


def match(run, embedder, preset, shown):
    """Score matching of pairs, and a search that is re-ranked.

    Names of 300 training emoji, in new phrases, must fit their own drawing, and
    neither a random one nor the first wrong one of a search by vectors.
    """
    task = kbt.BridgeTowerRetrieval.from_preset(preset)
    found = {}
    for artist, (drawn, images) in shown.items():
        rng = np.random.default_rng(SEED)
        seen = np.flatnonzero(~run.splits.held_out[drawn.numbers])
        own, random = (rng.permutation(seen)[:ASKED] for _ in range(2))
        asked = [
            texts.ask_anew(run.world[drawn.numbers[place]].name, place)
            for place in own
        ]
        scores = embedder.embed(texts=asked, batch_size=256) @ images.T
        best = np.argsort(-scores, 1, kind="stable")
        right = drawn.looks[best] == drawn.looks[own][:, None]
        nearest = best[np.arange(len(best)), right.argmin(1)]
        wrong = drawn.looks[random] != drawn.looks[own]
        its, others, like = (
            _odds(task, [drawn.pictures[place] for place in places], asked)
            for places in (own, random, nearest)
        )
        first = best[:, :SEARCHED]
        again = task.score(
            [drawn.pictures[place] for place in first.ravel()],
            np.repeat(asked, SEARCHED).tolist(),
            batch_size=160,
        ).reshape(first.shape)
        order = np.argsort(-again, 1, kind="stable")
        matched = np.take_along_axis(right, order, 1)
        found[artist] = {
            "own, taken": reports.percent(its > 0),
            "random, refused": reports.percent(others[wrong] < 0),
            "nearest, refused": reports.percent(like < 0),
            "own above nearest": reports.percent(its > like),
            **_recalls("by vectors, IR", right, BEST, 1),
            **_recalls("matched again, IR", matched, BEST, 1),
        }
    return found


def fill(run, preset, shown):
    """Score names of one token behind a blank; blind: on a white picture."""
    task = kbt.BridgeTowerMaskedLM.from_preset(preset)
    tokenizer = task.preprocessor.tokenizer
    found = {}
    for artist, (drawn, _) in shown.items():
        rng = np.random.default_rng(SEED)
        names = [" " + run.world[number].name for number in drawn.numbers]
        # Start, name and end.
        short = (tokenizer(names) != tokenizer.pad_token_id).sum(-1) == 3
        asked = [
            (place, run.world[drawn.numbers[place]].name)
            for place in np.flatnonzero(short)
            if not run.splits.held_out[drawn.numbers[place]]
        ]
        asked = [asked[row] for row in rng.permutation(len(asked))[:ASKED]]
        pictures = [drawn.pictures[place] for place, _ in asked]
        white = [np.full_like(picture, 255) for picture in pictures]
        found[artist] = {
            "names": len(asked),
            **_filled("", task, pictures, asked),
            **_filled("blind, ", task, white, asked),
        }
    return found


def _odds(task, pictures, asked):
    x = {"images": np.stack(pictures), "text": asked}
    logits = task.predict(x, batch_size=100, verbose=0)
    return logits[:, 1] - logits[:, 0]


def _filled(said, task, pictures, asked):
    names = [name for _, name in asked]
    sentences = [
        BLANK.format(article=texts.with_article(name).removesuffix(name))
        for name in names
    ]
    given = task.fill_mask(pictures, sentences, top_k=max(BEST), batch_size=100)
    words = [[word.strip() for word, _ in masks[0]] for masks, _ in given]
    return {
        f"{said}first {k}": reports.percent(
            [n in w[:k] for n, w in zip(names, words, strict=True)]
        )
        for k in BEST
    }


if __name__ == "__main__":
    main()
