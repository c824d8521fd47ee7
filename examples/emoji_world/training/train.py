r"""Train the emoji presets, stage by stage; a stopped run goes on.

    export PYTHONPATH=examples KERAS_BACKEND=torch
    python -m emoji_world.training.train runs/emoji

Each stage reads what the one before wrote into the folder. No epoch is
chosen by a score: the last one stands.
"""

import argparse
import json
import pathlib
import time

import keras

import keras_bridgetower as kbt
from emoji_world import questions
from emoji_world.training import language
from emoji_world.training import looking
from emoji_world.training.drawings import TrainingDrawings
from emoji_world.training.model import SPACE
from emoji_world.training.model import new_task
from emoji_world.training.model import new_tokenizer
from emoji_world.training.model import train
from emoji_world.training.run import Run
from emoji_world.training.space import Space


def language_stage(run, epochs=3):
    """The text tower learns English from MiniLM."""
    space = Space(run)
    task = new_task(_tokenizer(space))
    language.know_words(task, space)
    history = language.learn(
        task,
        space.texts,
        space.of(space.texts),
        epochs,
        run.folder / "language_run",
        run.seed,
    )
    return task, history


def pictures_stage(run, epochs=70):
    """The image tower learns where the drawings lie in MiniLM's space."""
    space = Space(run)
    task = new_task(_tokenizer(space))
    history = looking.learn(
        task,
        TrainingDrawings(run),
        space,
        epochs,
        run.folder / "pictures_run",
        run.seed,
    )
    return task, history


def _tokenizer(space):
    captions = [text for made in space.captions.values() for text in made]
    return new_tokenizer([*space.texts, *captions * 4])


def pretrain_stage(run, epochs=20):
    """The fusion learns to fill blanks and to match; the towers rest."""
    start, eyes = (
        kbt.BridgeTowerContrastive.from_preset(run.folder / name)
        for name in ("language", "pictures")
    )
    task = kbt.BridgeTowerPretraining(
        start.backbone,
        kbt.BridgeTowerPretrainingPreprocessor(
            start.preprocessor.tokenizer,
            start.preprocessor.image_converter,
            negatives="hard_negatives",
            rate=0.3,
        ),
        negatives="hard_negatives",
        projection_dim=SPACE,
        ways="three_way",
    )
    for side, taught in (("text", start), ("image", eyes)):
        layers = zip(_layers(task, side), _layers(taught, side), strict=True)
        for resting, known in layers:
            resting.set_weights(known.get_weights())
            resting.trainable = False
    types = task.backbone.fusion.type_embedding
    types.assign(eyes.backbone.fusion.type_embedding)
    types.trainable = False
    data = TrainingDrawings(run).pairs(128, run.seed)
    history = train(task, data, epochs, 1e-3, run.folder / "pretrain_run")
    return task, history


def _layers(task, side):
    """What leads from a text or a picture to its place in the space."""
    fusion = task.backbone.fusion
    tower = getattr(task.backbone, f"{side}_tower")
    layers = [tower, getattr(task.heads["itc"], f"{side}_dense")]
    if side == "image":
        layers += fusion.image_projections
    return layers


def vqa_stage(run, epochs=15):
    """The fusion and a new head learn to answer; the towers rest."""
    start = kbt.BridgeTowerPretraining.from_preset(
        run.folder / "pretrain", negatives="hard_negatives"
    )
    task = kbt.BridgeTowerVQA(
        start.backbone,
        kbt.BridgeTowerVQAPreprocessor(
            start.preprocessor.tokenizer,
            start.preprocessor.image_converter,
            questions.ANSWERS,
        ),
    )
    for tower in (task.backbone.text_tower, task.backbone.image_tower):
        tower.trainable = False
    data = TrainingDrawings(run).questions(128, run.seed)
    history = train(task, data, epochs, 1e-3, run.folder / "vqa_run")
    return task, history


STAGES = {
    "language": language_stage,
    "pictures": pictures_stage,
    "pretrain": pretrain_stage,
    "vqa": vqa_stage,
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", type=pathlib.Path)
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    run = Run(settings.folder, settings.seed)
    for name in settings.stages:
        target = run.folder / name
        if target.exists():
            continue
        keras.utils.set_random_seed(settings.seed)
        started = time.time()
        task, history = STAGES[name](run)
        task.save_to_preset(target)
        record = {
            "backend": keras.config.backend(),
            "seed": settings.seed,
            "seconds": round(time.time() - started),
            "training": history,
        }
        target.with_suffix(".json").write_text(json.dumps(record, indent=2))
        print(f"{name}: {record['seconds']} seconds", flush=True)


if __name__ == "__main__":
    main()
