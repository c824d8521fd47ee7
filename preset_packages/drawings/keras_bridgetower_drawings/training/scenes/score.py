"""Score a preset on scenes that training never saw.

    python -m keras_bridgetower_drawings.training.scenes.score FOLDER PRESET

It prints how often the true caption has a higher score than the swapped one, by
sort, by the fusion and by the vectors; half of the time is blind. Then nDCG@10
of lists of 40 scenes, and its gain over the vectors with a paired interval.
"""

import json

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower.metrics import retrieval
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.scenes import captions
from keras_bridgetower_drawings.training.scenes.scenes import SORTS
from keras_bridgetower_drawings.training.scenes.scenes import World
from keras_bridgetower_drawings.training.scenes.things import Things

SEED, PAIRS, LISTS, LENGTH = 2028, 150, 100, 40


def pairs(world, count=PAIRS, seed=SEED):
    """Return tuples of sort, scene, caption and swapped caption."""
    rng = np.random.default_rng(seed)
    found = []
    for sort in SORTS:
        for _ in range(count):
            scene = world.scene(rng, sort)
            other = world.near_miss(scene, sort, rng)
            both = captions.captions(scene, sort, world.part, rng, other)
            found.append((sort, scene, *both))
    return found


def lists(world, count=LISTS, seed=SEED + 1):
    """Return pairs of a caption and its list of scenes, the first one true.

    A list holds the scene, its near misses of all sorts, one thing more and one
    fewer, and other scenes, of which some have things in common.
    """
    rng = np.random.default_rng(seed)
    found = []
    for number in range(count):
        sort = SORTS[number % len(SORTS)]
        scene = world.scene(rng, sort)
        other = world.near_miss(scene, sort, rng)
        caption, _ = captions.captions(scene, sort, world.part, rng, other)
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


def of_pairs(task, world, found, embed=None):
    """Return shares by sort, of the fusion and of the vectors."""
    side = task.backbone.image_size
    drawn = [world.draw(scene, side) for _, scene, _, _ in found]
    sorts = np.array([sort for sort, *_ in found])
    scores = {"fusion": []} | ({"vectors": []} if embed else {})
    for told in ([c.text for *_, c, _ in found], [w.text for *_, w in found]):
        scores["fusion"].append(task.score(drawn, told, batch_size=100))
        if embed:
            scores["vectors"].append((embed(drawn) * embed(None, told)).sum(1))
    return {
        name: {s: float((true > false)[sorts == s].mean()) for s in SORTS}
        for name, (true, false) in scores.items()
    }


def of_lists(task, embed, world, found):
    """Return nDCG@10 of both orders, and the gain with its interval."""
    side = task.backbone.image_size
    near, fused, grades = [], [], []
    for caption, shown in found:
        drawn = [world.draw(scene, side) for scene in shown]
        texts = [caption.text] * len(drawn)
        fused.append(task.score(drawn, texts, batch_size=LENGTH))
        near.append(embed(drawn) @ embed(None, [caption.text])[0])
        grades.append([caption.grade(scene) for scene in shown])
    # Of equal scores the true one is not the first.
    orders = [np.array(x)[:, ::-1] for x in (near, fused, grades)]
    before, after = (retrieval.list_ndcg(x, orders[2]) for x in orders[:2])
    gain = retrieval.paired_interval(after - before)
    return {
        "vectors": float(before.mean()),
        "fusion": float(after.mean()),
        "gain": [round(x, 3) for x in gain],
    }


def embedder(task):
    """Return a function from pictures or texts to vectors of a task."""
    head = task.heads["itc"]
    embed = kbt.BridgeTowerContrastive(
        task.backbone, task.preprocessor, head.projection_dim, ways=head.ways
    )
    embed.heads["itc"].set_weights(head.get_weights())
    embed.new_heads.restore({})

    def read(images, texts=None):
        if texts is not None:
            return embed.embed(texts=texts, batch_size=100)
        return embed.embed(images=images, batch_size=100)

    return read


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("preset")
    parser.add_argument("--part", default="validation")
    parser.add_argument(
        "--vectors", help="preset of the vectors; by default the scored one"
    )
    settings = parser.parse_args()
    world = World(Things(settings.folder).of(settings.part), settings.part)
    task = kbt.BridgeTowerRetrieval.from_preset(settings.preset)
    embed = embedder(task)
    if settings.vectors:
        # Pictures are resized to its side.
        other = kbt.BridgeTowerContrastive.from_preset(settings.vectors)
        embed = embedder(other)
    found = of_pairs(task, world, pairs(world), embed)
    found["lists"] = of_lists(task, embed, world, lists(world))
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
