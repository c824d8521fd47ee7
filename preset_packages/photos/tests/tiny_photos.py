"""A photo world of disks, tiny towers, and a pool of scenes."""

import json

import keras_hub
import numpy as np
from keras_bridgetower_photos.training import things
from keras_bridgetower_photos.training.batches import SCENES
from PIL import Image
from PIL import ImageDraw

import keras_bridgetower as kbt
from keras_bridgetower.encoders.classified import ClassifiedEncoder

WORDS = "a photo of cat car is this on the left red yes ? .".split()
NOUNS = "owl crow tiger donkey lemon banana".split()
SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
CLASSES = 20
# In place of values of `model.FUSION`.
FUSION = {
    "hidden_dim": 12,
    "num_heads": 2,
    "intermediate_dim": 48,
    "taps": (-3, -2, -1, None),
    "image_taps": (-4, -3, -1, None),
    "image_positions": None,
}
# Noun, kind and color of things whose cut-outs are disks of that color.
DISKS = (
    ("owl", "bird", "red"),
    ("crow", "bird", "green"),
    ("tiger", "mammal", "blue"),
    ("donkey", "mammal", "yellow"),
    ("lemon", "fruit", "red"),
    ("banana", "fruit", "blue"),
)
PAINTS = {
    "red": (220, 30, 30),
    "green": (30, 200, 30),
    "blue": (30, 30, 220),
    "yellow": (220, 220, 30),
}


def disks(folder):
    """Return a world of six disks and three gray places in each of two splits.

    Args:
        folder: path, where the pictures are written.
    """
    found, photographs = [], []
    for split in ("train", "test"):
        for noun, kind, color in DISKS:
            image = Image.new("RGBA", (240, 240), (255, 0, 255, 0))
            paint = PAINTS[color] if split == "train" else (220, 30, 220)
            ImageDraw.Draw(image).ellipse((5, 5, 230, 230), (*paint, 255))
            path = folder / f"{split}-{noun}.png"
            image.save(path)
            name = noun if split == "train" else f"{split} {noun}"
            told = (name, name, (), kind, color, name, split)
            found.append(things.Thing(path.stem, path, *told))
        for place in ("dam", "castle", "windmill"):
            path = folder / f"{split}-{place}.png"
            Image.new("RGB", (300, 240), (128, 128, 128)).save(path)
            told = (place, place, (), "building", "", place, split, place)
            photographs.append(things.Photograph(path.stem, path, *told))
    return things.World(tuple(found), tuple(photographs))


def tokenizer():
    return kbt.BridgeTowerBertTokenizer(
        SPECIAL + WORDS + NOUNS, sequence_length=32
    )


def encoders(vocabulary_size, side=8):
    """Return an image encoder for small pictures, and a text encoder."""
    image = keras_hub.models.EfficientNetBackbone(
        stackwise_width_coefficients=[1.0] * 2,
        stackwise_depth_coefficients=[1.0] * 2,
        stackwise_squeeze_and_excite_ratios=[0] * 2,
        stackwise_kernel_sizes=[3] * 2,
        stackwise_num_repeats=[1, 1],
        stackwise_input_filters=[8, 8],
        stackwise_output_filters=[8, 16],
        stackwise_expansion_ratios=[1, 2],
        stackwise_strides=[1, 2],
        stackwise_block_types=["v1"] * 2,
        input_shape=(side, side, 3),
    )
    text = keras_hub.models.BertBackbone(
        vocabulary_size=vocabulary_size,
        num_layers=3,
        num_heads=2,
        hidden_dim=16,
        intermediate_dim=16,
        max_sequence_length=32,
    )
    return ClassifiedEncoder(image, CLASSES), text


def write_pool(folder, nouns=("cat", "car"), count=2 * SCENES):
    """Write random states of scenes, each of one of two nouns in turn."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    rows = [
        {
            "sort": "alone",
            "nouns": [noun],
            "captions": [f"a photo of a {noun}", "a red photo"],
            "wrong": [f"a {noun} on the left"],
            "questions": [
                [f"is this a {nouns[0]} ?", answer, [], "is noun", ""],
                ["is this ?", noun, ["red", "yes"], "noun", ""],
            ],
        }
        for noun, answer in zip(nouns, ("yes", "no"), strict=True)
    ] * (count // 2)
    for layer, width in enumerate((8, 16, CLASSES)):
        states = rng.random((len(rows), 5, width)).astype("float16")
        np.save(folder / f"states_{layer}.npy", states)
    (folder / "rows.json").write_text(json.dumps(rows))
    return folder
