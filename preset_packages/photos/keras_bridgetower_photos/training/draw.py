"""Draw scenes in pools, and keep the states of the image tower for them.

    python -m keras_bridgetower_photos.training.draw runs/photos --pools 8

The image tower rests, so a picture passes it once, compiled by OpenVINO. A pool
holds some thousand scenes with all that is said and asked of them; training
goes through each pool a few times, and new ones are drawn beside it.
"""

import os
import pathlib

os.environ.setdefault("KERAS_BACKEND", "torch")

import keras
import numpy as np
import openvino
import torch
from keras_bridgetower_drawings.training import reports

from keras_bridgetower.models.towers import Tower
from keras_bridgetower_photos.training import captions
from keras_bridgetower_photos.training import gallery
from keras_bridgetower_photos.training import model
from keras_bridgetower_photos.training import packages
from keras_bridgetower_photos.training import pools
from keras_bridgetower_photos.training import questions
from keras_bridgetower_photos.training import scenes
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training import unknown

SCENES = 4000
BATCH = 32
WRONG = 3
PAINTED = 0.35  # Share of the things that have another color.


class Eyes:
    """The image tower for one size, compiled; the backend must be PyTorch.

    `taps` are the states, by default those that the fusion reads, `precision`
    is that of OpenVINO: `"bf16"` is faster on a CPU that has it.
    """

    def __init__(self, encoder, side=model.SIDE, taps=None, precision="f32"):
        taps = taps or [t for t in model.FUSION["image_taps"] if t is not None]
        tower = Tower(encoder, taps, positions=model.FUSION["image_positions"])
        shape = (BATCH, side, side, 3)
        with torch.no_grad():
            graph = torch.export.export(
                _Outputs(tower).eval(), (torch.zeros(shape),)
            )
        precision = {"INFERENCE_PRECISION_HINT": precision}
        self._compiled = openvino.Core().compile_model(
            openvino.convert_model(graph), "CPU", precision
        )
        self._convert = model.converter(side)

    def states(self, pictures):
        """Return the states of a list of pictures, float16 arrays."""
        return model.states_of(pictures, self._see, BATCH)

    def _see(self, batch):
        given = keras.ops.convert_to_numpy(self._convert(batch))
        seen = self._compiled(given)
        return [seen[i].astype("float16") for i in range(len(seen))]


class _Outputs(torch.nn.Module):
    """A tower as a module of PyTorch that returns a tuple."""

    def __init__(self, tower):
        super().__init__()
        self.tower = tower

    def forward(self, images):
        return tuple(self.tower(images))


def described(scene, rng, answers):
    """Return what is said and asked of a scene, as plain values."""
    wrong = []
    for _ in range(WRONG):
        try:
            wrong.append(captions.wrong_caption(scene, rng))
        except ValueError:
            break
    asked = questions.questions(scene, rng, answers)
    asked += questions.questions(scene, rng, answers)
    shown = [placed.thing for placed in scene.placed]
    return {
        "sort": scene.sort,
        "ids": [thing.id for thing in shown],
        "nouns": sorted({thing.noun for thing in shown}),
        "captions": captions.captions(scene, rng),
        "wrong": wrong,
        "questions": [
            [q.text, q.answer, list(q.other_answers), q.sort, q.wording]
            for q in asked
        ],
    }


def draw_batch(drawn, eyes, rng, answers):
    """Draw a batch of scenes; return their descriptions and states."""
    made = [drawn.draw(rng) for _ in range(BATCH)]
    rows = [described(scene, rng, answers) for scene in made]
    return rows, eyes.states([scene.picture for scene in made])


def draw(world, eyes, number, folder):
    """Draw a pool of training scenes and write it, unless it is there."""
    target = pathlib.Path(folder) / f"train_{number}"
    if target.exists():
        return target
    rng = np.random.default_rng((0, number))
    given = {"shares": scenes.TRAINING_SHARES, "painted": PAINTED}
    drawn = scenes.Scenes(world, "train", **given)
    answers = set(questions.answers(world))
    rows, states = [], []
    for _ in range(SCENES // BATCH):
        made, seen = draw_batch(drawn, eyes, rng, answers)
        rows += made
        states.append(seen)
    states = [np.concatenate(parts) for parts in zip(*states, strict=True)]
    return pools.write(target, states, rows)


def draw_pictures(target, pictures, eyes):
    """Write the states of pictures without descriptions, unless it is there."""
    if not target.exists():
        pools.write(target, eyes.states(pictures()), [])


def main():
    parser = reports.parser(__doc__)
    parser.add_argument("--pools", type=int, default=8)
    settings = parser.parse_args()
    folders = packages.fetch(settings.folder / "packages")
    world = things.load(folders)
    eyes = Eyes(model.image_encoder(folders))
    target = settings.folder / "pools"
    draw_pictures(target / "gallery", lambda: gallery.pictures(world), eyes)
    draw_pictures(
        target / "outliers",
        lambda: [np.array(one) for *_, one in unknown.outliers(folders)],
        eyes,
    )
    for number in range(settings.pools):
        print(draw(world, eyes, number, target), flush=True)


if __name__ == "__main__":
    main()
