"""Trains the encoders that the tiny variants start from, each once.

As in the paper the encoders come with what they know and the cross-modal
layers do not. An image encoder learns to name what the training pictures
show, a text encoder to fill in hidden tokens of the training questions.
"""

import types

import keras
import numpy as np
from ablation_models import build
from ablation_variants import Variant
from easy_world import scenes as easy_vqa_scenes
from easy_world.training.tiny_training import compile_for
from easy_world.training.tiny_training import train_image_tower

import keras_bridgetower as kbt

# Share of a question's tokens that are hidden.
HIDDEN = 0.3
IGNORED = -100


def converter(side):
    return kbt.BridgeTowerImageConverter(side, mode="squash")


def once(folder, name, train):
    """The weight file of an encoder, made by `train` when first needed.

    Args:
        folder: path.
        name: str, the encoder.
        train: callable that returns the trained encoder.
    """
    path = folder / f"{name.replace('/', '-')}.weights.h5"
    if not path.exists():
        keras.utils.set_random_seed(0)
        print(f"{name} is pre-trained.", flush=True)
        written = path.with_name(f"new-{path.name}")
        train().save_weights(written)
        written.replace(path)
    return path


def image_encoder(name, size, scenes, settings):
    """An image encoder that names attributes of pictures."""
    variant = Variant("", {"num_layers": 1}, image=name)
    backbone = build(variant, size)
    preprocessor = types.SimpleNamespace(
        image_converter=converter(backbone.image_size)
    )
    found = train_image_tower(
        types.SimpleNamespace(backbone=backbone, preprocessor=preprocessor),
        scenes,
        list(easy_vqa_scenes.ATTRIBUTES),
        settings.tower_epochs,
        settings,
    )
    print(f"{name}: accuracies {found}", flush=True)
    return backbone.image_encoder


def text_encoder(name, size, tokenizer, questions, settings):
    """A text encoder that fills in hidden tokens."""
    backbone = build(Variant("", {"num_layers": 1}, text=name), size)
    tower = backbone.text_tower
    model = keras.Model(
        tower.input,
        keras.layers.Dense(size.vocabularies[name])(tower(tower.input)[-1]),
    )
    masking = tokenizer.masking(rate=HIDDEN)
    texts = tokenizer.encode(questions)
    rng = np.random.default_rng(0)
    compile_for(
        model,
        settings.text_steps,
        settings.learning_rate,
        loss=keras.losses.SparseCategoricalCrossentropy(
            from_logits=True, ignore_class=IGNORED
        ),
        jit_compile=False,
    )
    for step in range(settings.text_steps):
        rows = rng.integers(len(questions), size=settings.tower_batch_size)
        ids, mask = (texts[k][rows] for k in ("token_ids", "padding_mask"))
        made = masking(ids, mask, seed=step)
        hidden = np.zeros_like(ids)
        # Places of slots that are left over are 0, the start token.
        np.put_along_axis(hidden, made["mask_positions"], 1, axis=1)
        hidden[:, 0] = 0
        x = {
            "token_ids": made["token_ids"],
            "padding_mask": mask,
            "segment_ids": np.zeros_like(ids),
        }
        loss = model.train_on_batch(
            {key: x[key] for key in tower.input},
            np.where(hidden, ids, IGNORED),
        )
    print(f"{name}: loss of hidden tokens {float(loss):.3f}", flush=True)
    return backbone.text_encoder
