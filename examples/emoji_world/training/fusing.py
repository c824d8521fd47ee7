"""Last stages: the fusion learns all tasks at once; the towers rest."""

import numpy as np

import keras_bridgetower as kbt
from emoji_world import questions
from emoji_world.training.drawings import TrainingDrawings
from emoji_world.training.model import SPACE
from emoji_world.training.model import train
from emoji_world.training.together import Together

BATCH = 32
# Of the tokens of a caption, the share that is masked or replaced.
MASKED = 0.4
# Matching learns last of all, from gradients that others drown.
WEIGHTS = {"mlm": 0.5, "itm": 5.0, "itc": 0.3}


def new_tasks(reader, eyes):
    """`Together` with new fusion and heads, over towers that are known.

    Args:
        reader: contrastive task whose text side is taken, and whose model
            becomes that of the result.
        eyes: contrastive task whose image side is taken.
    """
    both = _tasks(reader.backbone, reader.preprocessor, "random_negatives")
    heads = both.pairs.heads["itc"], reader.heads["itc"]
    _take(*[head.text_dense for head in heads])
    for mine, known in zip(_eyes(both.pairs), _eyes(eyes), strict=True):
        _take(mine, known)
    types = reader.backbone.fusion.type_embedding
    types.assign(eyes.backbone.fusion.type_embedding)
    return both


def known_tasks(folder):
    """`Together` as it was saved, which now matches hard pairs."""
    pairs = kbt.BridgeTowerPretraining.from_preset(folder)
    vqa = kbt.BridgeTowerVQA.from_preset(folder)
    both = _tasks(pairs.backbone, pairs.preprocessor, "hard_negatives")
    for name in pairs.heads:
        both.pairs.heads[name].set_weights(pairs.heads[name].get_weights())
    both.questions.heads["vqa"].set_weights(vqa.heads["vqa"].get_weights())
    return both


def learn(both, run, epochs, learning_rate, folder, places=None):
    """Train the fusion; returns the history.

    Args:
        both: `Together`.
        run: `Run`.
        epochs: int.
        learning_rate: float, the highest of the schedule.
        folder: str, in the run's; a copy of the unfinished run lives in it.
        places: float array `(emoji, SPACE)`, where each lies, if a batch is
            to hold emoji that are near each other.
    """
    backbone = both.pairs.backbone
    head = both.pairs.heads["itc"]
    for layer in (backbone.text_tower, head.text_dense, *_eyes(both.pairs)):
        layer.trainable = False
    backbone.fusion.type_embedding.trainable = False
    both.pairs.compile(loss_weights=WEIGHTS)
    both.questions.compile()
    drawings = TrainingDrawings(run)
    order = None if places is None else _neighbours_first(drawings, places)
    data = both.batches(
        drawings.pairs(BATCH, run.seed),
        drawings.questions(BATCH, run.seed),
        order,
    )
    return train(both, data, epochs, learning_rate, run.folder / folder)


def _tasks(backbone, known, negatives):
    given = known.tokenizer, known.image_converter
    pairs = kbt.BridgeTowerPretraining(
        backbone,
        kbt.BridgeTowerPretrainingPreprocessor(
            *given, rate=MASKED, negatives=negatives
        ),
        negatives=negatives,
        projection_dim=SPACE,
        ways="three_way",
    )
    vqa = kbt.BridgeTowerVQA(
        backbone, kbt.BridgeTowerVQAPreprocessor(*given, questions.ANSWERS)
    )
    return Together(pairs, vqa)


def _neighbours_first(drawings, places):
    """An order in which a batch holds different emoji, near each other."""
    rows = {}
    for row, (number, _) in enumerate(drawings.rows):
        rows.setdefault(number, []).append(row)
    numbers = np.array(list(rows))

    def order(rng):
        groups = []
        while len(groups) * BATCH < len(drawings.rows):
            near = _near(numbers, places, rng)
            groups += [group for group in near if len(group) == BATCH]
        chosen = np.concatenate(
            [groups[i] for i in rng.permutation(len(groups))]
        )
        return np.array([rng.choice(rows[number]) for number in chosen])

    return order


def _near(numbers, places, rng):
    """Cut by random planes until a group is a batch; one may be smaller."""
    if len(numbers) <= BATCH:
        return [numbers]
    one, other = places[rng.choice(numbers, 2, replace=False)]
    ranked = numbers[np.argsort(places[numbers] @ (one - other))]
    half = max(1, len(ranked) // BATCH // 2) * BATCH
    return [
        *_near(ranked[:half], places, rng),
        *_near(ranked[half:], places, rng),
    ]


def _take(layer, known):
    layer.set_weights(known.get_weights())


def _eyes(task):
    """The layers from a picture to its place in the space."""
    backbone = task.backbone
    projections = backbone.fusion.image_projections
    return [backbone.image_tower, *projections, task.heads["itc"].image_dense]
