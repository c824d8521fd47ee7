"""Train the emoji presets, stage by stage; resume an interrupted run.

    export KERAS_BACKEND=torch
    python -m keras_bridgetower_drawings.training.emoji.train runs/emoji

Each stage reads what the one before wrote into the folder. The last epoch is
used, none is chosen by a score.
"""

import numpy as np

import keras_bridgetower as kbt
from keras_bridgetower_drawings.training import reports
from keras_bridgetower_drawings.training.emoji import fusing
from keras_bridgetower_drawings.training.emoji import questions
from keras_bridgetower_drawings.training.emoji import texts
from keras_bridgetower_drawings.training.emoji import towers
from keras_bridgetower_drawings.training.emoji.drawings import TrainingDrawings
from keras_bridgetower_drawings.training.emoji.model import new_task
from keras_bridgetower_drawings.training.emoji.model import new_tokenizer
from keras_bridgetower_drawings.training.emoji.model import run_stages
from keras_bridgetower_drawings.training.emoji.run import WHOLE
from keras_bridgetower_drawings.training.emoji.run import Run
from keras_bridgetower_drawings.training.emoji.teacher import Space
from keras_bridgetower_drawings.training.emoji.world import SIDE
from keras_bridgetower_drawings.training.emoji.world import on_white


def language_stage(run, folder, epochs=3):
    space = Space(run)
    task = new_task(_tokenizer(space))
    towers.know_words(task, space)
    vectors = space.of(space.texts)
    return task, towers.learn_english(
        task, space.texts, vectors, epochs, folder, run.seed
    )


def captions_stage(run, folder, epochs=100):
    task = _read(run, "language")
    space = Space(run)
    _, places, same = towers.places_of(space, run, space.of)
    return task, towers.learn_captions(
        task, run, space, places, same, epochs, folder
    )


def glances_stage(run, folder, epochs=150):
    space = Space(run)
    task = new_task(_tokenizer(space), SIDE // 2)
    drawings = TrainingDrawings(run)
    return task, towers.learn_places(
        task, drawings, space, space.of, epochs, 1.5e-3, folder
    )


def pictures_stage(run, folder, epochs=18):
    """Continue with drawings of full size, more of them recolored.

    The targets are now the vectors of our own text tower.
    """
    reader = _read(run, "captions")
    task = kbt.BridgeTowerContrastive.from_preset(
        run.folder / "glances", image_size=SIDE
    )
    drawings = TrainingDrawings(run, mixed=0.3)

    def read(texts):
        return reader.embed(texts=texts, batch_size=512)

    return task, towers.learn_places(
        task, drawings, Space(run), read, epochs, 5e-4, folder
    )


def meeting_stage(run, folder, epochs=90):
    task, eyes = _read(run, "captions"), _read(run, "pictures")
    space, drawings = Space(run), TrainingDrawings(run)
    shown = np.stack([on_white(drawing) for _, drawing in drawings.rows])
    looks = run.splits.looks
    same = towers.alike(
        looks[list(space.captions)], looks[[n for n, _ in drawings.rows]]
    )
    places = eyes.embed(images=shown, batch_size=128)
    return task, towers.learn_captions(
        task, run, space, places, same, epochs, folder
    )


def fusion_stage(run, folder, epochs=30):
    both = fusing.new_tasks(_read(run, "meeting"), _read(run, "pictures"))
    return both, fusing.learn(both, run, epochs, 1e-3, folder, epochs / 2)


def spelling_stage(run, folder, epochs=3):
    """Give British spellings the embeddings of the American ones.

    The fusion continues with texts in both.
    """
    asked = [*questions.ASK_COLOR, "is this gray?"]
    said = [texts.phrase(way, "gray cat") for way in texts.WAYS]
    both = fusing.with_both_spellings(
        run.folder / "fusion",
        [*asked, *said, *(text.capitalize() for text in said)],
    )
    return both, fusing.learn(both, run, epochs, 2e-4, folder)


def _read(run, stage):
    return kbt.BridgeTowerContrastive.from_preset(run.folder / stage)


def _tokenizer(space):
    captions = [text for made in space.captions.values() for text in made]
    return new_tokenizer([*space.texts, *captions * 4])


STAGES = {
    "language": language_stage,
    "captions": captions_stage,
    "glances": glances_stage,
    "pictures": pictures_stage,
    "meeting": meeting_stage,
    "fusion": fusion_stage,
    WHOLE: spelling_stage,
}


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("stages", nargs="*", default=list(STAGES))
    parser.add_argument("--seed", type=int, default=0)
    settings = parser.parse_args()
    run = Run(settings.folder, settings.seed)
    run_stages({name: STAGES[name] for name in settings.stages}, run)


if __name__ == "__main__":
    main()
