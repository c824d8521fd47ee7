"""Folders of `transformers` as they are published, of tiny random models.

A folder holds an encoder and what prepares its inputs: an image processor, or
the files of its own tokenizer.
"""

import json

import text_folders
import transformers
from peers import DEBERTA
from peers import DINO
from peers import DISTILBERT
from peers import IMAGE
from peers import OF_ROBERTA
from peers import TEXT
from peers import moving
from peers import randomised

SIDE = IMAGE["image_size"]
# Texts of one length; the tokenizer adds a start token.
FIXED = TEXT | {"max_position_embeddings": 24}
# More rows than any of the tokenizers has tokens.
VOCABULARY = {"vocab_size": 1800}
SQUARE = {"size": {"height": SIDE, "width": SIDE}}
CROPPED = {"size": {"shortest_edge": SIDE}, "crop_size": SIDE}
BIT = ("Bit", CROPPED)
BOTH = {"vision_config": IMAGE, "text_config": TEXT}

# By model type: values of the configuration, and the image processor. The first
# type of an encoder is tested each time.
IMAGES = {
    "clip_vision_model": (IMAGE, "CLIP", CROPPED),
    "metaclip_2": (BOTH, "CLIP", CROPPED),
    "siglip": (BOTH, "Siglip", SQUARE),
    "vit": (IMAGE, "ViT", SQUARE),
    "deit": (IMAGE, "DeiT", {"size": SIDE + 4, "crop_size": SIDE}),
    "dinov2_with_registers": (DINO | {"num_register_tokens": 3}, *BIT),
    "dinov2": (DINO, *BIT),
    "dinov3_vit": (IMAGE | {"num_register_tokens": 4}, "DINOv3ViT", SQUARE),
    "efficientnet": (
        dict(
            image_size=SIDE,
            width_coefficient=0.5,
            depth_coefficient=1.0,
            in_channels=[32, 16, 32],
            out_channels=[16, 32, 48],
            kernel_sizes=[3, 5, 3],
            strides=[1, 2, 1],
            num_block_repeats=[1, 1, 1],
            expand_ratios=[1, 2, 3],
            depthwise_padding=[],
            hidden_dim=640,
        ),
        "EfficientNet",
        SQUARE,
    ),
    "resnet": (
        dict(layer_type="basic", hidden_sizes=[64, 72], depths=[1, 1]),
        "ConvNext",
        {"size": {"shortest_edge": SIDE}},
    ),
    "swin": (
        dict(
            image_size=SIDE,
            patch_size=4,
            embed_dim=8,
            depths=[1, 1],
            num_heads=[1, 2],
            window_size=4,
        ),
        "ViT",
        SQUARE,
    ),
}
# By model type: the values of the configuration, without the vocabulary.
TEXTS = {
    "roberta": TEXT | OF_ROBERTA,
    "xlm-roberta": TEXT | OF_ROBERTA,
    "bert": TEXT,
    "distilbert": DISTILBERT,
    "electra": TEXT | {"embedding_size": 16},
    "albert": TEXT | {"embedding_size": 16},
    "deberta-v2": TEXT | DEBERTA,
    "clip": TEXT,
    "metaclip_2": TEXT
    | {"bos_token_id": 0, "pad_token_id": 1, "eos_token_id": 2},
    "siglip": FIXED,
    "siglip2": FIXED,
}
# Their maps have several widths.
PYRAMIDS = ("efficientnet", "resnet", "swin")
WITHOUT_MASK = ("clip", "siglip", "siglip2")


def write_image(folder, kind):
    """Write the folder of an image encoder of a model type.

    That of `"resnet classes"` has a classifier too.
    """
    kind, _, classes = kind.partition(" ")
    values, processor, settings = IMAGES[kind]
    _write_model(folder, kind, values, classes and "ForImageClassification")
    # Some need torchvision, which the files do not.
    name = f"{processor}ImageProcessor"
    text = json.dumps({"image_processor_type": name, **settings})
    (folder / "preprocessor_config.json").write_text(text)
    return folder


def write_text(folder, kind):
    """Write the folder of a text encoder of a model type."""
    if kind == "roberta":
        text_folders.FORMS["published"](folder, *text_folders.few_words())
    elif kind == "bert":
        text_folders.word_pieces(folder)
    else:
        text_folders.FILES[kind](folder)
    values = TEXTS[kind] | VOCABULARY
    if kind in ("clip", "metaclip_2", "siglip", "siglip2"):
        values = {"text_config": values, "vision_config": IMAGE}
    _write_model(folder, kind, values)
    return folder


def _write_model(folder, kind, values, head=""):
    config = transformers.AutoConfig.for_model(kind, **values)
    model = getattr(transformers, f"AutoModel{head}").from_config(config)
    # Of a pyramid the running statistics are random too.
    made = moving(model) if kind in PYRAMIDS else randomised(model)
    made.save_pretrained(folder)
