"""Builds the task that a recipe trains, from a preset or from two encoders."""

import warnings

from keras_bridgetower.convert import unimodal
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.head_table import saved_heads
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.presets import registry
from keras_bridgetower.tasks.entailment import BridgeTowerEntailment
from keras_bridgetower.tasks.nlvr2 import BridgeTowerNLVR2
from keras_bridgetower.tasks.pretraining import BridgeTowerPretraining
from keras_bridgetower.tasks.retrieval import BridgeTowerRetrieval
from keras_bridgetower.tasks.unimodal import BridgeTowerImageClassifier
from keras_bridgetower.tasks.unimodal import BridgeTowerTextClassifier
from keras_bridgetower.tasks.vqa import BridgeTowerVQA

# How `from_preset` warns of a head that is not the preset's.
HEAD_IS_NEW = "New and random"
# Width and heads of the cross-modal layers; the paper has six of them.
SIZES = {"base": (768, 12), "large": (1024, 16)}
LAYERS = 6


def from_preset(recipe, preset, labels, load_weights=True):
    """A task from a preset, with a new head where the preset lacks it.

    Args:
        recipe: a `Recipe`.
        preset: as the `from_preset` of a task takes it.
        labels: list of str, the classes of a VQA or a classifier.
        load_weights: bool, `False` for new random weights.

    Returns:
        The task. Where its head is new and the recipe asks for it, the
        poolers are new as well.
    """
    cls, values = class_and_values(recipe, labels)
    preset = registry.open_preset(preset)
    if "itc" in saved_heads(preset):
        # A head that has learnt is worth more than one of another width.
        values.pop("projection_dim", None)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        task = cls.from_preset(
            preset,
            load_weights,
            image_size=recipe.image_size,
            # The saved preset sees pictures as the score was measured.
            image_mode=_placing(recipe)["mode"],
            **values,
        )
    others = [w for w in said if HEAD_IS_NEW not in str(w.message)]
    for warning in others:
        warnings.warn(warning.message, stacklevel=2)
    if recipe.new_poolers and len(others) < len(said):
        # The preset's own head would not know them.
        task.backbone.fusion.reset_poolers()
    return task


def from_encoders(recipe, image_source, text_source, labels):
    """A task over two uni-modal encoders, as pre-training starts.

    Args:
        recipe: a `Recipe`.
        image_source: as `convert.unimodal.image_encoder`.
        text_source: path of a `transformers` folder of RoBERTa or BERT.
        labels: list of str, the classes of a VQA.
    """
    width, heads = SIZES[recipe.size]
    backbone = BridgeTowerBackbone(
        unimodal.image_encoder(image_source, recipe.image_size),
        unimodal.text_encoder(text_source),
        hidden_dim=width,
        num_heads=heads,
        num_layers=LAYERS,
        bridge=recipe.bridge,
        dropout=recipe.dropout,
    )
    cls, values = class_and_values(recipe, labels)
    chosen = {k: values[k] for k in cls.label_arguments if k in values}
    preprocessor = cls.preprocessor_cls(
        unimodal.tokenizer(text_source, recipe.text_length),
        BridgeTowerImageConverter(recipe.image_size, **_placing(recipe)),
        features=tuple(backbone.input),
        **chosen,
    )
    return cls(backbone, preprocessor, **values)


def class_and_values(recipe, labels):
    """The class of a recipe's task, and what the recipe says of it.

    Args:
        recipe: a `Recipe`.
        labels: list of str, the classes of a VQA or a classifier.

    Returns:
        The class, and a dict of arguments of it.
    """
    cls, values = TASKS[recipe.task]
    return cls, values(recipe, labels)


def print_what_stands(recipe, task):
    """Print the values of a task's preset that the recipe has otherwise."""
    fusion = task.backbone.fusion
    found = {"bridge": fusion.bridge, "dropout": fusion.dropout}
    if recipe.projection_dim is not None:
        found["projection_dim"] = task.projection_dim
    for name, value in found.items():
        if value != getattr(recipe, name):
            print(f"  {name}: {value}, the preset's, stands")


def set_text_length(task, length):
    """Let a task read texts of some tokens, if it has positions for them.

    Args:
        task: a task with a preprocessor.
        length: int, tokens of a text with its ends.

    Raises:
        ValueError: more tokens than the text encoder has positions.
    """
    most = task.backbone.text_encoder.max_sequence_length
    if length > most:
        raise ValueError(
            f"The recipe's texts have {length} tokens, and the text encoder "
            f"that it starts from has positions for {most}: add "
            f"`--set text_length={most}`, or start from another one. "
            f"Received: text_length={length}"
        )
    task.preprocessor.tokenizer.sequence_length = length


def _placing(recipe):
    """How the recipe's evaluation makes squares of pictures."""
    made = transform(recipe.eval_transform, recipe.image_size)
    return {"mode": made.steps[-1].mode, "mean": made.mean, "std": made.std}


def _objectives(recipe, labels):
    return {"objectives": recipe.objective}


def _matching(recipe, labels):
    values = {"objective": recipe.objective}
    if recipe.projection_dim is not None:
        values["projection_dim"] = recipe.projection_dim
    return values


def _head(recipe, labels):
    return {"head_hidden_scale": recipe.head_scale}


def _answers(recipe, labels):
    return {**_head(recipe, labels), "answers": labels}


def _two_pictures(recipe, labels):
    return {**_head(recipe, labels), "dropout": recipe.head_dropout}


def _labels(recipe, labels):
    return {"labels": labels}


TASKS = {
    "Pretraining": (BridgeTowerPretraining, _objectives),
    "Retrieval": (BridgeTowerRetrieval, _matching),
    "VQA": (BridgeTowerVQA, _answers),
    "Entailment": (BridgeTowerEntailment, _head),
    "NLVR2": (BridgeTowerNLVR2, _two_pictures),
    "ImageClassifier": (BridgeTowerImageClassifier, _labels),
    "TextClassifier": (BridgeTowerTextClassifier, _labels),
}
