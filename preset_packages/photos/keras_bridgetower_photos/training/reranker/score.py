"""Score a preset on scenes of photographs that training never saw.

    python -m keras_bridgetower_photos.training.reranker.score FOLDER PRESET

The pairs and lists are those of the drawings' scenes
(`keras_bridgetower_drawings.training.scenes.score`), of photographed things.
Each picture passes the image tower once; its states are kept.
"""

import keras
import numpy as np
from keras import ops
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.scenes import score

import keras_bridgetower as kbt
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.reranker.world import World

RELEASED = "bridgetower_small_photo_contrastive"


class Shown(World):
    """A world whose drawn scenes are numbers, of which scores keep states."""

    def __init__(self, world, part):
        super().__init__(world, part)
        self.numbers = {}

    def draw(self, scene, side):
        return self.numbers.setdefault(scene, len(self.numbers))

    def pictures(self, side):
        """Return the pictures of all scenes whose numbers were asked for."""
        return [super(Shown, self).draw(s, side) for s in self.numbers]

    def scene(self, rng, sort=None):
        """Draw a scene, without a sort one of those that have a number."""
        if sort is not None:
            return super().scene(rng, sort)
        known = list(self.numbers)
        return known[rng.integers(len(known))]


class Scores:
    """Scores pictures and texts by fusion, words, and vectors.

    Args:
        task: a `BridgeTowerRetrieval`.
        states: its `KeptStates` of all pictures.
        released: float32 `(pictures, width)`, other vectors of them.
        known: the `BridgeTowerContrastive` that these are of.
    """

    def __init__(self, task, states, released, known):
        self.task, self.states = task, states
        self.released, self.known = released, known
        self.own = score.embedder(task)

    def __call__(self, drawn, texts):
        """Return dict from names to the scores of pairs, float `(pairs,)`."""
        states = self.states[drawn]
        pictures = self.own.embed(images=states, batch_size=100)
        return {
            "fusion": self.task.score(states, texts, batch_size=100),
            "words": self.words(states, texts),
            "vectors": (pictures * self.own.embed(texts=texts)).sum(1),
            "released vectors": (
                self.released[drawn] * self.known.embed(texts=texts)
            ).sum(1),
        }

    def words(self, states, texts):
        """Return the similarities of words and places alone."""
        tokenizer = self.task.preprocessor.tokenizer
        outputs = self.task.backbone.image_tower.outputs
        widths = [x.shape[-1] for x in outputs]
        found = []
        for first in range(0, len(texts), 100):
            ids = np.asarray(tokenizer(texts[first : first + 100]), "int32")
            mask = (ids != tokenizer.pad_token_id).astype("int32")
            told = {"token_ids": ids, "padding_mask": mask}
            seen = states[first : first + 100].read()
            seen = np.split(seen, np.cumsum(widths)[:-1], axis=-1)
            seen = [ops.convert_to_tensor(x) for x in seen]
            found.append(score.word_similarity(self.task, told, seen))
        return np.concatenate(found)


def drawn(world, side, part, forms=None, counts=()):
    """Return what is scored: a world, its pairs and lists, and their pictures.

    Args:
        side: int, of the pictures.
        world, part, forms, counts: as of `tables`.
    """
    shown = Shown(world, part)
    count, length = counts or (score.PAIRS, score.LISTS)
    pairs = score.pairs(shown, count, forms=forms)
    for _, scene, _, _ in pairs:
        shown.draw(scene, side)
    # Beside near misses, they show scenes of the pairs.
    lists = score.lists(shown, length, forms=forms)
    for _, scenes in lists:
        for scene in scenes:
            shown.draw(scene, side)
    return shown, pairs, lists, shown.pictures(side)


def tables(folder, task, known, world, part, forms=None, counts=()):
    """Return the tables of pairs and lists.

    Args:
        folder: path, where states of pictures are kept.
        task: a `BridgeTowerRetrieval`.
        known: the `BridgeTowerContrastive` with whose vectors it is compared.
        world: `things.World`.
        part: `"validation"` or `"test"`.
        forms: of captions, by default those of the part.
        counts: how many pairs of a sort, and lists; by default as for drawings.
    """
    side = task.backbone.image_size
    shown, pairs, lists, pictures = drawn(world, side, part, forms, counts)
    scores = Scores(
        task,
        task.keep_states(folder, images=pictures),
        known.embed(images=pictures),
        known,
    )
    return {
        "pairs": score.of_pairs(scores, shown, pairs),
        "lists": score.of_lists(scores, shown, lists),
    }


def main():
    settings = score.parser(__doc__).parse_args()
    run = settings.folder
    world = things.load(packages.fetch(run / "packages"))
    task = kbt.BridgeTowerRetrieval.from_preset(settings.preset)
    forms = settings.forms or settings.part
    known = kbt.BridgeTowerContrastive.from_preset(RELEASED)
    states = run / f"states_{forms}"
    found = tables(states, task, known, world, settings.part, forms)
    name = f"scores_{forms}_{keras.backend.backend()}.json"
    reports.write_scores(run / name, found)


if __name__ == "__main__":
    main()
