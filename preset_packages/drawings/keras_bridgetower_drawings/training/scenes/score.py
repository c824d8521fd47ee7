"""Score a preset on scenes that training never saw.

    python -m keras_bridgetower_drawings.training.scenes.score FOLDER PRESET

It prints how often the true caption has a higher score than the swapped one, by
sort: by the fusion, by the similarity of words and places, by the vectors, and
by the vectors of the released preset. Half of the time is blind. Then nDCG@10
of lists of 40 scenes, and what the fusion has more, with a paired interval.
"""

import numpy as np
from keras import ops

import keras_bridgetower as kbt
from keras_bridgetower.metrics import retrieval
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes import start
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World
from keras_bridgetower_drawings.training.scenes.things import Things

SEED, PAIRS, LISTS, LENGTH = 2028, 150, 100, 40


def pairs(world, count=PAIRS, seed=SEED, forms=None):
    """Return tuples of sort, scene, caption and swapped caption."""
    forms = forms or world.part
    rng = np.random.default_rng(seed)
    found = []
    for sort in SORTS:
        for _ in range(count):
            scene = world.scene(rng, sort)
            other = world.near_miss(scene, sort, rng)
            both = captions.captions(scene, sort, forms, rng, other)
            found.append((sort, scene, *both))
    return found


def lists(world, count=LISTS, seed=SEED + 1, forms=None):
    """Return pairs of a caption and its list of scenes, the first one true.

    A list holds the scene, its near misses of all sorts, one thing more and one
    fewer, and other scenes, of which some have things in common.
    """
    forms = forms or world.part
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        sort = SORTS[number % len(SORTS)]
        scene = world.scene(rng, sort)
        other = world.near_miss(scene, sort, rng)
        caption, _ = captions.captions(scene, sort, forms, rng, other)
        shown = [scene, *near_misses(world, scene, rng)]
        while len(shown) < LENGTH:
            shown.append(world.scene(rng))
        found.append((caption, shown))
    return found


def near_misses(world, scene, rng):
    """Return all near misses of a scene that differ from it."""
    sorts = ["thing", "thing", "ground"]
    if len(scene.things) > 1:
        sorts += ["side", "size"]
        sorts += ["color"] if scene.things[0].color else []
    found = [world.near_miss(scene, sort, rng) for sort in sorts]
    if len(scene.things) > 1:
        found.append(world.fewer(scene))
    elif (more := world.more(scene, rng)) is not None:
        found.append(more)
    return found


def embedder(task):
    """Return a `BridgeTowerContrastive` with a task's vectors."""
    head = task.heads["itc"]
    own = kbt.BridgeTowerContrastive(
        task.backbone, task.preprocessor, head.projection_dim, head.ways
    )
    own.heads["itc"].set_weights(head.get_weights())
    own.new_heads.restore({})
    return own


def word_similarity(task, texts, image_states):
    """Return the similarities of words and places, float `(pairs,)`.

    Args:
        task: a `BridgeTowerRetrieval`.
        texts: dict of the tokens of texts.
        image_states: states of as many pictures, as its image tower has them.
    """
    backbone = task.backbone
    mask = {"padding_mask": texts["padding_mask"]}
    told = backbone.text_tower({"token_ids": texts["token_ids"]} | mask)
    read = backbone.fusion(
        *(told, image_states, texts["padding_mask"]),
        outputs=("words", "patches"),
    )
    near = task.heads["itm"].word_similarity(read | mask)
    return ops.convert_to_numpy(near)


class Scores:
    """Scores pictures and texts by a task's fusion, its words and its vectors.

    Args:
        task: a `BridgeTowerRetrieval`.
        given: a `BridgeTowerContrastive` with other vectors to compare with,
            or None.
    """

    def __init__(self, task, given=None):
        self.task = task
        self.embedders = {"vectors": embedder(task)}
        if given is not None:
            self.embedders["released vectors"] = given

    def __call__(self, drawn, texts):
        """Return dict from names to the scores of pairs, float `(pairs,)`."""
        found = {"fusion": self.task.score(drawn, texts, batch_size=100)}
        found["words"] = self.words(drawn, texts)
        for name, embedder in self.embedders.items():
            both = [
                embedder.embed(**{of: given}, batch_size=100)
                for of, given in (("images", drawn), ("texts", texts))
            ]
            found[name] = (both[0] * both[1]).sum(1)
        return found

    def words(self, drawn, texts):
        """Return the similarities of words and places alone."""
        found = []
        for first in range(0, len(drawn), 100):
            x = self.task.preprocessor(
                {
                    "images": np.stack(drawn[first : first + 100]),
                    "text": texts[first : first + 100],
                }
            )
            states = self.task.backbone.image_tower(x["images"])
            found.append(word_similarity(self.task, x, states))
        return np.concatenate(found)


def of_pairs(scores, world, found):
    """Return by sort how often each score prefers the true caption."""
    side = scores.task.backbone.image_size
    drawn = [world.draw(scene, side) for _, scene, _, _ in found]
    sorts = np.array([sort for sort, *_ in found])
    true, false = (
        scores(drawn, [row[at].text for row in found]) for at in (2, 3)
    )
    return {
        name: {
            s: reports.percent((true[name] > false[name])[sorts == s])
            for s in SORTS
        }
        for name in true
    }


def ndcg_of_lists(scores, world, found):
    """Return nDCG@10 of each list by the name of its order."""
    side = scores.task.backbone.image_size
    by, grades = {}, []
    for caption, shown in found:
        drawn = [world.draw(scene, side) for scene in shown]
        # Of equal scores the true one is not the first.
        for name, one in scores(drawn, [caption.text] * len(drawn)).items():
            by.setdefault(name, []).append(one[::-1])
        grades.append([caption.grade(scene) for scene in shown][::-1])
    return {
        name: retrieval.list_ndcg(np.array(rows), np.array(grades))
        for name, rows in by.items()
    }


def of_lists(scores, world, found):
    """Return nDCG@10 of each order, and the gain over others with intervals."""
    ndcg = ndcg_of_lists(scores, world, found)
    table = {
        name: {"nDCG@10": round(float(v.mean()), 3)} for name, v in ndcg.items()
    }
    for name, values in ndcg.items():
        if name != "fusion":
            gain = retrieval.paired_interval(ndcg["fusion"] - values)
            words = "{:+.3f} ({:+.3f} to {:+.3f})".format(*gain)
            table[name]["the fusion has more"] = words
    return table


def parser(doc):
    """Return an `ArgumentParser` of a scoring, from a docstring."""
    made = reports.parser(doc)
    made.add_argument("preset")
    made.add_argument("--part", default="validation")
    made.add_argument("--forms", help="of captions; by default of the part")
    return made


def main():
    settings = parser(__doc__).parse_args()
    world = World(Things(settings.folder).of(settings.part), settings.part)
    task = kbt.BridgeTowerRetrieval.from_preset(settings.preset)
    known = kbt.BridgeTowerContrastive.from_preset(start.PRESET)
    scores = Scores(task, known)
    tables = {
        "pairs": of_pairs(scores, world, pairs(world, forms=settings.forms)),
        "lists": of_lists(scores, world, lists(world, forms=settings.forms)),
    }
    name = f"scores_{settings.forms or settings.part}.json"
    reports.write_scores(settings.folder / name, tables)


if __name__ == "__main__":
    main()
