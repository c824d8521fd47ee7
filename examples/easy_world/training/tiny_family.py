"""The stages of `train_tiny_family.py`: the model, data and score of each."""

import dataclasses
from collections.abc import Callable

import keras_bridgetower as kbt
from easy_world import captions
from easy_world import entailment
from easy_world import pairs
from easy_world import pictures
from easy_world.scenes import load_scenes
from easy_world.training import tiny_rows
from easy_world.training import tiny_scores
from easy_world.training.tiny_training import SIDE
from easy_world.training.tiny_training import build_backbone
from easy_world.training.tiny_training import learn_vocabulary
from easy_world.training.vocabulary import with_more_words

PROJECTION_DIM = 64
# The stage that most others start from.
START = "pretrain"
# The longest text has 15 tokens.
SEQUENCE_LENGTH = 16
# Where texts are varied, and users write their own.
VARIED_LENGTH, VARIED_VOCABULARY = 24, 704


@dataclasses.dataclass(frozen=True)
class Stage:
    """One preset of the family.

    Args:
        build: callable from the pre-trained preset's folder to the task.
        rows: callable from scenes and seed to raw `(x, y)` of one epoch.
        score: callable from task and scenes to a dict of percentages.
        blind: dict, scores on test without a look at the pictures.
        measure: str, what the scores are.
        epochs: int.
        batch_size: int.
        learning_rate: float, over that of the command line.
        texts: str, what was special about the training texts.
        start: str, the stage whose preset it starts from.
    """

    build: Callable
    rows: Callable
    score: Callable
    blind: dict
    measure: str
    epochs: int
    batch_size: int = 128
    learning_rate: float = 0.5
    texts: str = ""
    start: str = START


def _pretraining(folder):
    scenes = load_scenes("train")
    texts = [
        *pictures.load("train").questions,
        *captions.captions(scenes).texts,
        *entailment.entailment(scenes).hypotheses,
        *pairs.pairs(scenes).sentences,
    ]
    vocabulary, merges = learn_vocabulary(texts)
    preprocessor = kbt.BridgeTowerPretrainingPreprocessor(
        kbt.BridgeTowerTokenizer(vocabulary, merges, SEQUENCE_LENGTH),
        kbt.BridgeTowerImageConverter(SIDE),
        rate=0.3,
    )
    return kbt.BridgeTowerPretraining(
        build_backbone(
            len(vocabulary), image_layers=4, text_layers=2, layers=2
        ),
        preprocessor,
        projection_dim=PROJECTION_DIM,
    )


def _start(cls, **values):
    """The task of a class, from the pre-trained preset."""
    return lambda folder: cls.from_preset(folder, **values)


def _start_with_more_words(cls, **values):
    """Likewise, with the words of varied texts in its vocabulary."""

    def build(folder):
        scenes = load_scenes("train")
        texts = [
            *sorted(set(entailment.varied_entailment(scenes).hypotheses)),
            *captions.varied_captions(scenes),
        ]
        return with_more_words(
            cls, folder, texts, VARIED_VOCABULARY, VARIED_LENGTH, **values
        )

    return build


def _fill_start(folder):
    """For pictures seen in full, the image tower knows enough: it rests."""
    build = _start_with_more_words(kbt.BridgeTowerMaskedLM, rate=0.3)
    task = build(folder)
    task.backbone.image_tower.trainable = False
    return task


# What a predictor gets that guesses on the test gallery.
CHANCE = {"IR@1": 0.22, "IR@5": 1.09, "IR@10": 2.18} | {
    "TR@1": 0.22,
    "TR@5": 1.09,
    "TR@10": 2.16,
    "RSUM": captions.RETRIEVAL_LADDER[()],
}
# How statements are scored: by what, blind, and what it is.
JUDGED = (
    tiny_scores.score_hypotheses,
    {"accuracy": entailment.BLIND_ENTAILMENT["text and view"]},
    "Accuracy. Blind: the majority label of text and kind of view.",
)
STAGES = {
    "pretrain": Stage(
        _pretraining,
        tiny_rows.caption_rows,
        tiny_scores.score_pretraining,
        {"itm_accuracy": 50.0, "itc_accuracy": 1.0},
        "Accuracies of masked tokens (30 % of all), of matching (half the "
        "texts with another picture) and of the nearest picture among 100.",
        epochs=40,
        learning_rate=1.0,
    ),
    "mlm": Stage(
        _fill_start,
        tiny_rows.varied_captions,
        tiny_scores.score_blanks,
        captions.BLIND_BLANKS | {"mean": 27.68},
        "Share of captions whose one masked word is found, for each attribute. "
        "Blind: the attribute's most frequent word.",
        epochs=24,
        batch_size=64,
        learning_rate=1.0,
        texts="Seven of ten training texts are said in many ways "
        "(`wordings.py`), the others are captions as in the score. Words such "
        "as `upper`, `big` and `grey` are tokens, which can fill a blank. The "
        "image tower was not trained further.",
    ),
    "retrieval": Stage(
        _start(kbt.BridgeTowerRetrieval, objective="hard_negatives"),
        tiny_rows.caption_rows,
        tiny_scores.score_ranking,
        CHANCE | {"true or false caption": 50.0},
        "Recall on the gallery of distinct pictures, by the two-stage protocol "
        "with a shortlist of 32; and captions that are true or wrong in one "
        "attribute. Blind: guessing.",
        epochs=15,
    ),
    "contrastive": Stage(
        _start(
            kbt.BridgeTowerContrastive,
            projection_dim=PROJECTION_DIM,
            ways="three_way",
        ),
        tiny_rows.caption_rows,
        tiny_scores.score_embeddings,
        CHANCE,
        "Recall on the gallery of distinct pictures, by the cosine of text and "
        "image embeddings alone. Blind: guessing.",
        epochs=15,
    ),
    # The statements of the score alone: of varied ones from the start a model
    # learns the words, and not to look.
    "statements": Stage(
        _start(kbt.BridgeTowerEntailment),
        tiny_rows.hypotheses,
        *JUDGED,
        epochs=6,
    ),
    "entailment": Stage(
        _start_with_more_words(kbt.BridgeTowerEntailment),
        tiny_rows.varied_hypotheses,
        *JUDGED,
        epochs=20,
        batch_size=64,
        texts="Training began with the texts of the score alone (the stage "
        "`statements`). Then a third of the texts were those, the others were "
        "said in many ways (`wordings.py`).",
        start="statements",
    ),
    "nlvr2": Stage(
        _start(kbt.BridgeTowerNLVR2),
        tiny_rows.statements,
        tiny_scores.score_statements,
        {"accuracy": pairs.BLIND_PAIRS["text and right"]},
        "Accuracy, and share of sentences that are right for all four pairs. "
        "Blind: the better of text with one of the two pictures.",
        epochs=12,
    ),
}
