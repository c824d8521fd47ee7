"""Last stages: the fusion learns over towers that rest."""

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
    backbone, known = reader.backbone, reader.preprocessor
    given = known.tokenizer, known.image_converter
    pairs = kbt.BridgeTowerPretraining(
        backbone,
        kbt.BridgeTowerPretrainingPreprocessor(*given, rate=MASKED),
        projection_dim=SPACE,
        ways="three_way",
    )
    vqa = kbt.BridgeTowerVQA(
        backbone, kbt.BridgeTowerVQAPreprocessor(*given, questions.ANSWERS)
    )
    layers = [
        (pairs.heads["itc"].text_dense, reader.heads["itc"].text_dense),
        *zip(_eyes(pairs), _eyes(eyes), strict=True),
    ]
    for mine, taught in layers:
        mine.set_weights(taught.get_weights())
    types = backbone.fusion.type_embedding
    types.assign(eyes.backbone.fusion.type_embedding)
    return Together(pairs, vqa)


def learn(both, run, epochs, learning_rate, folder):
    """Train the fusion; returns the history.

    Args:
        both: `Together`.
        run: `Run`.
        epochs: int.
        learning_rate: float, the highest of the schedule.
        folder: path; a copy of the unfinished run lives in it.
    """
    _rest_towers(both.pairs)
    both.pairs.compile(loss_weights=WEIGHTS)
    both.questions.compile()
    drawings = TrainingDrawings(run)
    data = both.batches(
        drawings.pairs(BATCH, run.seed), drawings.questions(BATCH, run.seed)
    )
    return train(both, data, epochs, learning_rate, folder)


def answer_more(run, folder, epochs):
    """Train on questions alone; returns `Together` and the history.

    Args:
        run: `Run`.
        folder: path of the preset that `learn` made.
        epochs: int.
    """
    vqa = kbt.BridgeTowerVQA.from_preset(folder)
    known = kbt.BridgeTowerContrastive.from_preset(folder)
    pairs = kbt.BridgeTowerContrastive(
        vqa.backbone, known.preprocessor, projection_dim=SPACE, ways=known.ways
    )
    pairs.heads["itc"].set_weights(known.heads["itc"].get_weights())
    _rest_towers(pairs)
    drawings = TrainingDrawings(run)
    asked = drawings.questions(2 * BATCH, run.seed)
    history = train(vqa, asked, epochs, 1e-3, run.folder / "questions_run")
    # The embedding of a pair is read from the fusion, which has changed.
    pairs.backbone.trainable = False
    paired = drawings.pairs(2 * BATCH, run.seed)
    again = train(pairs, paired, 2, 1e-3, run.folder / "embedding_run")
    return Together(pairs, vqa), history | {"embedding": again}


def _rest_towers(task):
    """Let nothing change that the vector of a picture or a text is made of."""
    read = task.backbone.text_tower, task.heads["itc"].text_dense
    types = task.backbone.fusion.type_embedding
    for part in (*read, *_eyes(task), types):
        part.trainable = False


def _eyes(task):
    """The layers from a picture to its place in the space."""
    backbone = task.backbone
    projections = backbone.fusion.image_projections
    return [backbone.image_tower, *projections, task.heads["itc"].image_dense]
