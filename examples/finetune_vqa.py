"""Title: Teach a model a question that it has never seen
Author: the keras_bridgetower maintainers
Date: 2026-11-24
Description: A preset that knows shapes and colours learns to say how big the
    shape is, with three new answers and a new head. Raw pictures and strings
    go into `fit`.
Accelerator: none; one minute on one CPU core

    python examples/finetune_vqa.py

Runs offline; needs `pip install easy-vqa matplotlib`.
"""

import collections
import warnings

import example
import keras
from keras_bridgetower_drawings.training.easy.scenes import SIZES
from keras_bridgetower_drawings.training.easy.scenes import load_scenes

import keras_bridgetower as kbt

QUESTIONS = ["how big is the shape?", "what size is the shape?"]


def main():
    parser = example.parser(__file__, __doc__)
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--pictures", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    keras.utils.set_random_seed(arguments.seed)

    train, truth = rows("train", arguments.pictures)
    validation, test = rows("validation"), rows("test")
    with warnings.catch_warnings():
        # The head is newly initialized, which is intended here.
        warnings.simplefilter("ignore", UserWarning)
        vqa = kbt.BridgeTowerVQA.from_preset(
            "bridgetower_tiny_easy_vqa", answers=list(SIZES)
        )
    vqa.compile(keras.optimizers.AdamW(1e-3, global_clipnorm=1.0))
    vqa.fit(
        train,
        truth,
        batch_size=50,
        validation_data=validation,
        epochs=arguments.epochs,
    )
    asked, sizes = test
    scores = vqa.evaluate(
        asked, sizes, batch_size=50, verbose=0, return_dict=True
    )
    majority = collections.Counter(sizes).most_common(1)[0][1] / len(sizes)
    print(
        f"test: {100 * scores['vqa_score']:.1f} % right (always the most "
        f"frequent size: {100 * majority:.1f} %), 1,000 pictures, seed "
        f"{arguments.seed}"
    )
    images = list(asked["images"][:12])
    answers = vqa.answer(images, QUESTIONS[0])
    cells = [
        ([image], f"{answer} {score:.2f}\nis: {size}", answer == size)
        for image, ((answer, score),), size in zip(
            images, answers, sizes, strict=False
        )
    ]
    sheet = example.contact_sheet(cells, 6, QUESTIONS[0])
    caption = "answers to test pictures"
    example.save(sheet, arguments.output, "learned.png", caption)


def rows(split, count=None):
    """Return raw inputs and the answers, which are measured from the pixels."""
    scenes = load_scenes(split)
    images = scenes.data.images[:count]
    questions = [QUESTIONS[i % len(QUESTIONS)] for i in range(len(images))]
    sizes = [scenes.words(i)["size"] for i in range(len(images))]
    return {"images": images, "text": questions}, sizes


if __name__ == "__main__":
    main()
