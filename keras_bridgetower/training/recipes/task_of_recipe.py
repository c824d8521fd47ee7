"""Builds the task that a recipe trains, from a preset or from two encoders."""

import warnings

import keras
import keras_hub

from keras_bridgetower.convert import unimodal
from keras_bridgetower.data.augment.transforms import transform
from keras_bridgetower.encoders.registry import get_entry
from keras_bridgetower.encoders.registry import text_length
from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.models.head_table import saved_heads
from keras_bridgetower.objectives.pair_objectives import only_or_all
from keras_bridgetower.preprocessing.image_converter import (
    BridgeTowerImageConverter,
)
from keras_bridgetower.presets import registry
from keras_bridgetower.tasks.by_name import task_classes
from keras_bridgetower.tasks.from_preset import NewHeadWarning

# Width, heads, layers of the text and of the image encoder, patch side.
SIZES = {
    "base": (768, 12, 12, 12, 16),
    "large": (1024, 16, 24, 24, 14),
    "tiny": (16, 2, 2, 3, 8),
}
# Cross-modal layers.
LAYERS = 6
VOCABULARY = 50_265
# Classes that are learnt, where the number is not the task's own.
CLASSES = {"VQA": 3_129, "ImageClassifier": 100, "TextClassifier": 2}


def from_preset(recipe, preset, labels, load_weights=True):
    """Build a task from a preset, with a new head if the preset lacks it.

    If the head is new and `recipe.new_poolers` is set, the poolers are newly
    initialized too.

    Args:
        recipe: a `Recipe`.
        preset: as in the `from_preset` of a task.
        labels: list of str, the classes of a VQA or a classifier.
        load_weights: bool, `False` for new random weights.
    """
    cls, values = class_and_values(recipe, labels)
    preset = registry.open_preset(preset)
    if "itc" in saved_heads(preset):
        # Keep the trained head, whatever its width.
        values.pop("projection_dim", None)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", NewHeadWarning)
        task = cls.from_preset(
            preset,
            load_weights,
            image_size=recipe.image_size,
            # The saved preset resizes pictures as the evaluation does.
            image_mode=_placing(recipe)["mode"],
            dtype=recipe.dtype,
            **values,
        )
    if recipe.new_poolers and task.new_heads.still_random(task.heads):
        # The preset's own head was trained with its poolers.
        task.backbone.fusion.reset_poolers()
    return task


def from_encoders(recipe, image_source, text_source, labels):
    """Build a task on two uni-modal encoders, as pre-training starts.

    Args:
        recipe: a `Recipe`.
        image_source: as `convert.unimodal.image_encoder`.
        text_source: path of a `transformers` folder of RoBERTa or BERT.
        labels: list of str, the classes of a VQA.
    """
    image_encoder = unimodal.image_encoder(image_source, recipe.image_size)
    text_encoder = unimodal.text_encoder(text_source)
    backbone = _backbone(
        recipe,
        _with_dtype(image_encoder, recipe.dtype),
        _with_dtype(text_encoder, recipe.dtype),
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


def on_new_encoders(recipe):
    """Build a task on a CLIP and a RoBERTa of random weights.

    They have the size and dtype of the recipe.

    Args:
        recipe: a `Recipe`.
    """
    width, heads, text_layers, image_layers, patch = SIZES[recipe.size]
    side = recipe.image_size
    shared = {"hidden_dim": width, "num_heads": heads, "dtype": recipe.dtype}
    shared["intermediate_dim"] = 4 * width
    backbone = _backbone(
        recipe,
        keras_hub.models.CLIPVisionEncoder(
            patch_size=patch,
            num_layers=image_layers,
            image_shape=(side, side, 3),
            **shared,
        ),
        keras_hub.models.RobertaBackbone(
            VOCABULARY, num_layers=text_layers, **shared
        ),
    )
    labels = [*map(str, range(CLASSES.get(recipe.task, 0)))]
    cls, values = class_and_values(recipe, labels)
    return cls(backbone, **values)


def _backbone(recipe, image_encoder, text_encoder):
    width, heads, *layers, _ = SIZES[recipe.size]
    return BridgeTowerBackbone(
        image_encoder,
        text_encoder,
        hidden_dim=width,
        num_heads=heads,
        num_layers=min(LAYERS, *layers),
        bridge=recipe.bridge,
        dropout=recipe.dropout,
        dtype=recipe.dtype,
    )


def features(task, rows, tokens):
    """Return the features of a batch, as a dict of `KerasTensor`.

    Args:
        task: a task without a preprocessor.
        rows, tokens: ints, samples of the batch and tokens of each text.
    """
    found = {}
    for name, tensor in task.input.items():
        # Any token of a text may be masked but its first and last one.
        length = tokens - 2 * (name == "mask_positions")
        shape = (length if n is None else n for n in tensor.shape[1:])
        found[name] = keras.KerasTensor((rows, *shape), tensor.dtype)
    return found


def batch(task, recipe, rows):
    """Return features and labels of a batch, as structures of `KerasTensor`.

    Args:
        task: a task of the recipe, without a preprocessor.
        recipe: a `Recipe`.
        rows: int, samples of the batch.
    """

    def tensor(dtype, shape):
        return keras.KerasTensor((rows, *shape), dtype)

    x = features(task, rows, recipe.text_length)
    if recipe.task == "Retrieval":
        objective = task.pair_objective
        drawn = {"image_id": ("int32", ()), **objective.drawn}
        x |= {name: tensor(*spec) for name, spec in drawn.items()}
        labels = objective.targets(tensor(*objective.labels), x)
        return x, only_or_all(labels)
    if recipe.task == "VQA":
        return x, tensor("float32", task.output.shape[1:])
    # The id of a class, for each masked token or for the sample.
    masked = recipe.text_length - 2
    return x, keras.tree.map_structure(
        lambda logits: tensor("int32", [masked] * (len(logits.shape) - 2)),
        task.output,
    )


def _with_dtype(encoder, dtype):
    """Return an encoder with its weights, in another dtype policy."""
    if dtype is None:
        return encoder
    config = encoder.get_config() | {"dtype": dtype}
    made = type(encoder).from_config(config)
    made.set_weights(encoder.get_weights())
    return made


def class_and_values(recipe, labels):
    """Return the class of a recipe's task, and a dict of its arguments.

    Args:
        recipe: a `Recipe`.
        labels: list of str, the classes of a VQA or a classifier.
    """
    cls = task_class(recipe)
    values = {
        name: labels if field == "labels" else getattr(recipe, field)
        for name, field in cls.recipe_arguments.items()
    }
    return cls, {k: v for k, v in values.items() if v is not None}


def task_class(recipe):
    """Return the task class that a `Recipe` trains."""
    classes = {cls.__name__: cls for cls in task_classes().values()}
    return classes[f"BridgeTower{recipe.task}"]


def set_text_length(task, length):
    """Set the text length of a task, if it has positions for the tokens.

    Args:
        task: a task with a preprocessor.
        length: int, tokens of a text with its start and end tokens.

    Raises:
        ValueError: more tokens than the text encoder has positions, or fewer
            than an encoder of texts of one length reads.
    """
    encoder = task.backbone.text_encoder
    most, fixed = text_length(encoder), get_entry(encoder).fixed_length
    if length > most or (fixed and length < most):
        raise ValueError(
            f"`text_length` must be {most if fixed else f'at most {most}'}, "
            "the positions of the text "
            f"encoder: add `--set text_length={most}`. "
            f"Received: text_length={length}"
        )
    task.preprocessor.tokenizer.sequence_length = length


def _placing(recipe):
    """Return the arguments of the image converter for the evaluation."""
    last = transform(recipe.eval_transform, recipe.image_size)
    return {"mode": last.steps[-1].mode, "mean": last.mean, "std": last.std}


# Tasks of the records that tasks are trained on.
RECORD_TASKS = {
    "Pretraining": "captions",
    "Retrieval": "captions",
    "VQA": "vqa",
    "Entailment": "entailment",
    "NLVR2": "nlvr2",
}
