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
from emoji_world.training import captioning
from emoji_world.training import language
from emoji_world.training import looking
from emoji_world.training.drawings import TrainingDrawings
from emoji_world.training.model import SPACE
from emoji_world.training.model import new_task
from emoji_world.training.model import new_tokenizer
from emoji_world.training.model import train
from emoji_world.training.run import Run
from emoji_world.training.space import Space
from emoji_world.training.together import Together
from emoji_world.world import SIDE


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


def captions_stage(run, epochs=150):
    """The text tower learns to find emoji, and keeps its English."""
    task = kbt.BridgeTowerContrastive.from_preset(run.folder / "language")
    history = captioning.learn(
        task, run, Space(run), epochs, run.folder / "captions_run"
    )
    return task, history


def glances_stage(run, epochs=300):
    """The image tower learns from drawings of half the size, fast."""
    space = Space(run)
    task = new_task(_tokenizer(space), SIDE // 2)
    history = looking.learn(
        task,
        TrainingDrawings(run),
        space,
        space.of,
        epochs,
        1.5e-3,
        run.folder / "glances_run",
    )
    return task, history


def pictures_stage(run, epochs=30):
    """It goes on with drawings of full size, of which more are recoloured.

    Its places are now where our own text tower puts the captions.
    """
    reader = kbt.BridgeTowerContrastive.from_preset(run.folder / "captions")
    task = kbt.BridgeTowerContrastive.from_preset(
        run.folder / "glances", image_size=SIDE
    )
    history = looking.learn(
        task,
        TrainingDrawings(run, mixed=0.3),
        Space(run),
        lambda texts: reader.embed(texts=texts, batch_size=512),
        epochs,
        5e-4,
        run.folder / "pictures_run",
    )
    return task, history


def _tokenizer(space):
    captions = [text for made in space.captions.values() for text in made]
    return new_tokenizer([*space.texts, *captions * 4])


def fusion_stage(run, epochs=20):
    """The fusion learns all that it is for; the towers rest."""
    start, eyes = (
        kbt.BridgeTowerContrastive.from_preset(run.folder / name)
        for name in ("captions", "pictures")
    )
    pretraining = kbt.BridgeTowerPretraining(
        start.backbone,
        kbt.BridgeTowerPretrainingPreprocessor(
            start.preprocessor.tokenizer,
            start.preprocessor.image_converter,
            rate=0.3,
        ),
        projection_dim=SPACE,
        ways="three_way",
    )
    vqa = kbt.BridgeTowerVQA(
        start.backbone,
        kbt.BridgeTowerVQAPreprocessor(
            start.preprocessor.tokenizer,
            start.preprocessor.image_converter,
            questions.ANSWERS,
        ),
    )
    # The text tower is that of `start` already.
    start.backbone.text_tower.trainable = False
    _take(pretraining.heads["itc"].text_dense, start.heads["itc"].text_dense)
    for mine, known in zip(_eyes(pretraining), _eyes(eyes), strict=True):
        _take(mine, known)
    types = start.backbone.fusion.type_embedding
    types.assign(eyes.backbone.fusion.type_embedding)
    types.trainable = False
    # Matching learns last of all, from gradients that others drown.
    pretraining.compile(loss_weights={"mlm": 0.3, "itm": 5.0, "itc": 0.3})
    vqa.compile()
    drawings = TrainingDrawings(run)
    both = Together(pretraining, vqa)
    data = both.batches(
        drawings.pairs(128, run.seed), drawings.questions(128, run.seed)
    )
    history = train(both, data, epochs, 1e-3, run.folder / "fusion_run")
    return both, history


def _take(layer, known):
    """Take over the weights of a layer, and let them rest."""
    layer.set_weights(known.get_weights())
    layer.trainable = False


def _eyes(task):
    """The layers from a picture to its place in the space."""
    backbone = task.backbone
    projections = backbone.fusion.image_projections
    return [backbone.image_tower, *projections, task.heads["itc"].image_dense]


STAGES = {
    "language": language_stage,
    "captions": captions_stage,
    "glances": glances_stage,
    "pictures": pictures_stage,
    "fusion": fusion_stage,
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
