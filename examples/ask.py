"""Ask a trained BridgeTower about a picture.

    python examples/ask.py
    python examples/ask.py --image photo.png --question "is there a circle?"

Prints the answers with their scores and saves one picture: where the answer
looked, over the picture. Without arguments it asks about the pictures beside
this file. Runs offline.
"""

import argparse
import pathlib
import time

import keras
import numpy as np
from PIL import Image

import keras_bridgetower as kbt
from keras_bridgetower.analysis import attention_map
from keras_bridgetower.preprocessing.images import load_image

PICTURES = pathlib.Path(__file__).parent / "pictures"
QUESTIONS = (
    "what color is the shape?",
    "what shape is in the image?",
    "is there a red shape?",
)


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--image", type=pathlib.Path)
    parser.add_argument("--question")
    parser.add_argument("--preset", default="bridgetower_tiny_easy_vqa")
    parser.add_argument("--top-k", type=int, default=3)
    parser.add_argument(
        "--output", type=pathlib.Path, default=pathlib.Path("attention.png")
    )
    arguments = parser.parse_args()
    started = time.time()

    vqa = kbt.BridgeTowerVQA.from_preset(arguments.preset)
    images = (
        [arguments.image] if arguments.image else sorted(PICTURES.iterdir())
    )
    questions = [arguments.question] if arguments.question else QUESTIONS
    pairs = [(image, question) for image in images for question in questions]
    answers = vqa.answer(
        [image for image, _ in pairs],
        [question for _, question in pairs],
        top_k=arguments.top_k,
    )
    for (image, question), ranked in zip(pairs, answers, strict=True):
        scores = ", ".join(f"{answer} {score:.3f}" for answer, score in ranked)
        print(f"{image.name}: {question}  ->  {scores}")

    image, question = pairs[0]
    overlay(image, attention(vqa, image, question)).save(arguments.output)
    print(
        f"{arguments.output}: where the answer to '{question}' looked in "
        f"{image.name}"
    )
    seconds = time.time() - started
    print(f"{seconds:.1f} seconds on {keras.config.backend()}")


def attention(vqa, image, question):
    """How much the answer's text token attends to each patch, (g, g).

    The mean over the heads of the first cross-modal layer, where the text
    meets the picture; later layers attend to what is already mixed.
    """
    return attention_map(vqa, image, question, layer=0).whole[0]


def overlay(image, weights, side=512):
    """The picture with the weights as light, the rest darkened."""
    picture = Image.fromarray(load_image(image)).resize((side, side))
    light = Image.fromarray((weights / weights.max()).astype("float32")).resize(
        (side, side), Image.Resampling.BICUBIC
    )
    light = np.clip(np.asarray(light), 0, 1)[..., None]
    shown = np.asarray(picture) * (0.25 + 0.75 * light)
    return Image.fromarray(shown.round().astype("uint8"))


if __name__ == "__main__":
    main()
