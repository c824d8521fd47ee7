r"""Score a photo preset, with guessing and blind baselines beside it.

    python -m keras_bridgetower_photos.training.score runs/photos

prints tables and writes `scores_test.json` into the folder. Settings are chosen
by `--split validation` alone.
"""

import collections
import pathlib

import keras
import numpy as np
from keras import ops
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import rerank

from keras_bridgetower.apps.search.models import SearchModels
from keras_bridgetower.metrics.calibration import match_scores
from keras_bridgetower_photos.training import blind
from keras_bridgetower_photos.training import certainty
from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training import scenes
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.model import states_of
from keras_bridgetower_photos.training.model import text_features
from keras_bridgetower_photos.training.model import vqa_on

SCENES, TRAINING_SCENES = 1000, 4000
BATCH = 64
LISTED = 20  # Pictures of a list that matching orders again.
KEPT = (1, 5, 10)
KINDS = ("named", "described")  # Texts that search.
SPLITS = ("train", "validation", "test")
SIMILARITY = 400.0  # Its factor beside matching, chosen on validation.


class Judge(keras.Model):
    """Scores pairs of a text and a picture whose states are known."""

    def __init__(self, vqa, retrieval):
        super().__init__()
        self.vqa, self.retrieval = vqa, retrieval
        self.built = True

    def call(self, x, training=None):
        backbone = self.vqa.backbone
        told = backbone.text_tower(
            {name: x[name] for name in backbone.text_tower.input}
        )
        seen = [
            ops.cast(x[f"state_{i}"], state.dtype)
            for i, state in enumerate(told)
        ]
        pooled = backbone.fusion(
            told, seen, padding_mask=x["padding_mask"], outputs=("pooled",)
        )["pooled"]
        logits = self.retrieval.heads["itm"](pooled)
        return {
            "match": match_scores(logits),  # As the verbs of retrieval score.
            "answers": self.vqa.heads["vqa"](pooled),
        }

    def judge(self, texts, states, rows):
        """Return the outputs for each text and the picture of its row."""
        tokenizer = self.vqa.preprocessor.tokenizer
        found = collections.defaultdict(list)
        order = np.argsort([len(text) for text in texts], kind="stable")
        for first in range(0, len(texts), BATCH):
            here = np.resize(order[first : first + BATCH], BATCH)
            given = text_features(tokenizer, [texts[i] for i in here])
            for i, state in enumerate(states):
                given[f"state_{i}"] = np.asarray(state[rows[here]])
            for name, values in self.predict_on_batch(given).items():
                found[name].append(np.asarray(values))
        back = np.argsort(order, kind="stable")
        return {n: np.concatenate(x)[back] for n, x in found.items()}


def tower_states(backbone, pictures, converter):
    """Return the states of pictures by the preset's own tower."""

    def see(batch):
        states = backbone.image_tower.predict_on_batch(converter(batch))
        return [np.asarray(state) for state in states]

    return states_of(pictures, see, BATCH)


class Scored:
    """A preset, and the world that scores it."""

    def __init__(self, folder, preset, see=tower_states):
        self.folders = packages.fetch(pathlib.Path(folder) / "packages")
        self.world = things.load(self.folders)
        opened = SearchModels.from_preset(str(preset))
        self.contrastive = opened.contrastive
        backbone = self.contrastive.backbone
        self.judge = Judge(vqa_on(backbone, preset), opened.retrieval)
        # Ask only for answers that the training pictures can teach.
        self.asked = set(questions.answers(self.world))
        self.answers = self.judge.vqa.preprocessor.answers
        converter = self.contrastive.preprocessor.image_converter
        self.see = lambda shown: see(backbone, shown, converter)

    def drawn(self, split, count):
        """Draw scenes of a split, and a question of each sort of them."""
        rng = np.random.default_rng((9, SPLITS.index(split)))
        drawer = scenes.Scenes(self.world, split)
        made = [drawer.draw(rng) for _ in range(count)]
        return made, [questions.questions(one, rng, self.asked) for one in made]

    def answered(self, split, count=SCENES):
        """Ask about drawn scenes; return the questions and their logits."""
        made, asked = self.drawn(split, count)
        states = self.see([scene.picture for scene in made])
        rows = np.repeat(np.arange(len(made)), [len(a) for a in asked])
        flat = [question for several in asked for question in several]
        texts = [question.text for question in flat]
        return flat, self.judge.judge(texts, states, rows)["answers"]

    def are_right(self, asked, logits):
        """Return for each question whether the best answer is right."""
        best = [self.answers[i] for i in logits.argmax(1)]
        pairs = zip(asked, best, strict=True)
        return np.array([q.is_right(answer) for q, answer in pairs])

    def vqa_scores(self, split, asked, logits):
        """Return the share of right answers by sort, and blind ones."""
        every, right = self.are_right(asked, logits), {}
        for question, hit in zip(asked, every, strict=True):
            right.setdefault(question.sort, []).append(hit)
        _, taught = self.drawn("train", TRAINING_SCENES)
        taught = [question for several in taught for question in several]
        found = {s: reports.percent(hits) for s, hits in sorted(right.items())}
        guessed = blind.scores(taught, asked)
        return found | {
            "all": reports.percent(every),
            "blind": round(max(guessed.values()), 1),
            "questions": len(asked),
        }

    def searched(self, texts, states):
        """Search pictures by texts.

        Returns `(order, scores)`: the pictures of each text, most similar
        first, and the scores of the first `LISTED`, by matching and similarity.
        """
        head = self.contrastive.heads["itc"]
        first = ops.convert_to_tensor(states[-1][:, 0].astype("float32"))
        images = ops.convert_to_numpy(head({"image": first})["image"])
        vectors = self.contrastive.embed(texts=texts, batch_size=BATCH)
        near = vectors @ images.T
        order = np.argsort(-near, 1, kind="stable")
        listed = order[:, :LISTED]
        said = np.repeat(texts, listed.shape[1]).tolist()
        match = self.judge.judge(said, states, listed.ravel())["match"]
        near = np.take_along_axis(near, listed, 1)
        return order, match.reshape(listed.shape) + SIMILARITY * near

    def search_scores(self, split):
        """Search all pictures; then order the first of each list again."""
        shown, found = self.see(gallery.pictures(self.world)), {}
        for kind in KINDS:
            texts, fits = getattr(gallery, kind)(self.world, split)
            order, scores = self.searched(texts, shown)
            lists = list_scores(fits, order, scores)
            found[kind] = _recalls(fits, order) | {"texts": len(texts)}
            found[f"{kind}, re-ranked"] = rerank.compare(*lists)
        found["pictures"] = len(shown[-1])
        return found


def list_scores(fits, order, scores):
    """Return the scores of lists before and after they are reordered.

    `order` has the pictures of each text, `scores` those of the first ones.
    """
    listed = order[:, : scores.shape[1]]
    again = np.argsort(-scores, 1, kind="stable")
    again = np.take_along_axis(listed, again, 1)
    return [
        rerank.scores_of(
            np.take_along_axis(fits, pictures[:, :10], 1), fits.sum(1)
        )
        for pictures in (listed, again)
    ]


def _recalls(fits, order):
    hit = np.take_along_axis(fits, order, 1)
    return {f"R@{k}": reports.percent(hit[:, :k].any(1)) for k in KEPT}


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--preset", help="another preset than the run's")
    parser.add_argument("--split", default="test", choices=SPLITS[1:])
    settings = parser.parse_args()
    preset = settings.preset or settings.folder / "calibrated"
    scored = Scored(settings.folder, preset)
    asked, logits = scored.answered(settings.split)
    found = {
        "search": scored.search_scores(settings.split),
        "vqa": scored.vqa_scores(settings.split, asked, logits),
        "certainty": certainty.scores(scored, asked, logits),
    }
    path = settings.folder / f"scores_{settings.split}.json"
    reports.write_scores(path, found)


if __name__ == "__main__":
    main()
