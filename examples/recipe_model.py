"""The task that a recipe trains, at its start."""

import warnings

import keras_bridgetower as kbt
from keras_bridgetower.convert import unimodal
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.models.head_table import saved_heads
from keras_bridgetower.presets import registry

# The miniature's encoders: they play the part of CLIP and RoBERTa.
TINY_ENCODERS = "bridgetower_tiny_easy_pretrain"
# How `from_preset` warns of a head that is not the preset's.
HEAD_IS_NEW = "New and random"
# Width and heads of the cross-modal layers; the paper has six of them.
SIZES = {"base": (768, 12), "large": (1024, 16)}
LAYERS = 6


def from_preset(recipe, preset, labels):
    """A task from a preset, with a new head where it needs one."""
    task, has_new_head = _opened(recipe, preset, labels)
    _say_what_stands(recipe, task)
    if recipe.new_poolers and has_new_head:
        # The preset's own head would not know them.
        task.backbone.fusion.reset_poolers()
    return task


def set_text_length(task, length):
    """Let a task read texts of some tokens, if it has positions for them."""
    most = task.backbone.text_encoder.max_sequence_length
    if length > most:
        raise SystemExit(
            f"The recipe's texts have {length} tokens, and the text encoder "
            f"that it starts from has positions for {most}: add "
            f"`--set text_length={most}`, or start from another one."
        )
    task.preprocessor.tokenizer.sequence_length = length


def from_tiny_encoders(recipe, labels):
    """The miniature: pre-trained encoders, all above them at its start."""
    task, _ = _opened(recipe, TINY_ENCODERS, labels)
    _say_what_stands(recipe, task)
    fresh, _ = _opened(recipe, TINY_ENCODERS, labels, load_weights=False)
    towers = (task.backbone.image_tower, task.backbone.text_tower)
    encoders = {id(w) for tower in towers for w in tower.weights}
    for old, new in zip(task.weights, fresh.weights, strict=True):
        if id(old) not in encoders:
            old.assign(new)
    return task


def _opened(recipe, preset, labels, **kwargs):
    """A task of a preset, and whether a head of it is new."""
    cls, values = _class_and_values(recipe, labels)
    preset = registry.open_preset(preset)
    if "itc" in saved_heads(preset):
        # A head that has learnt is worth more than one of another width.
        values.pop("projection_dim", None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = cls.from_preset(
            preset,
            image_size=recipe.image_size,
            # The saved preset sees pictures as the score was measured.
            image_mode=_placing(recipe)["mode"],
            **kwargs,
            **values,
        )
    others = [w for w in said if HEAD_IS_NEW not in str(w.message)]
    for warning in others:
        warnings.warn(warning.message, stacklevel=3)
    return task, len(others) < len(said)


def _say_what_stands(recipe, task):
    fusion = task.backbone.fusion
    found = {"bridge": fusion.bridge, "dropout": fusion.dropout}
    if recipe.projection_dim is not None:
        found["projection_dim"] = task.projection_dim
    for name, value in found.items():
        if value != getattr(recipe, name):
            print(f"  {name}: {value}, the preset's, stands")


def from_encoders(recipe, image_source, text_source, labels):
    """A task over two uni-modal encoders, as pre-training starts.

    Args:
        recipe: a `Recipe`.
        image_source: as `convert.unimodal.image_encoder`.
        text_source: path of a `transformers` folder of RoBERTa or BERT.
        labels: list of str, the classes of a VQA.
    """
    width, heads = SIZES[recipe.size]
    backbone = kbt.BridgeTowerBackbone(
        unimodal.image_encoder(image_source, recipe.image_size),
        unimodal.text_encoder(text_source),
        hidden_dim=width,
        num_heads=heads,
        num_layers=LAYERS,
        bridge=recipe.bridge,
        dropout=recipe.dropout,
    )
    cls, values = _class_and_values(recipe, labels)
    chosen = {k: values[k] for k in cls.label_arguments if k in values}
    preprocessor = cls.preprocessor_cls(
        unimodal.tokenizer(text_source, recipe.text_length),
        kbt.BridgeTowerImageConverter(recipe.image_size, **_placing(recipe)),
        features=tuple(backbone.input),
        **chosen,
    )
    return cls(backbone, preprocessor, **values)


def _placing(recipe):
    """How the recipe's evaluation makes squares of pictures."""
    made = transform(recipe.eval_transform, recipe.image_size)
    return {"mode": made.steps[-1].mode, "mean": made.mean, "std": made.std}


def _class_and_values(recipe, labels):
    values = VALUES[recipe.task](recipe, labels)
    return getattr(kbt, f"BridgeTower{recipe.task}"), values


def _head(recipe, labels):
    return {"head_hidden_scale": recipe.head_scale}


def _matching(recipe, labels):
    values = {"objective": recipe.objective}
    if recipe.projection_dim is not None:
        values["projection_dim"] = recipe.projection_dim
    return values


VALUES = {
    "Pretraining": lambda recipe, labels: {"objectives": recipe.objective},
    "Retrieval": _matching,
    "VQA": lambda recipe, labels: {**_head(recipe, labels), "answers": labels},
    "Entailment": _head,
    "NLVR2": lambda recipe, labels: {
        **_head(recipe, labels),
        "dropout": recipe.head_dropout,
    },
}
