"""Counts the memory and the operations of training from shapes alone.

Tasks are built and run on PyTorch's "meta" device, whose tensors have shapes
and no values. Activations are what PyTorch's autograd keeps for the backward
pass; what JAX and TensorFlow keep differs by what their compilers fuse.
"""

import keras
import keras_hub

from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.training.recipes.task_of_recipe import class_and_values

# Width, heads, layers of the text and of the image encoder, patch side.
SIZES = {
    "base": (768, 12, 12, 12, 16),
    "large": (1024, 16, 24, 24, 14),
    "tiny": (16, 2, 2, 3, 8),
}
LAYERS = 6
VOCABULARY = 50_265
# Classes that are learnt, where the number is not the task's own.
CLASSES = {"VQA": 3_129, "ImageClassifier": 100, "TextClassifier": 2}


class _Meta(str):
    """A name of the meta device that equals PyTorch's device object.

    Otherwise Keras finds them different and copies the tensor, and the copy
    has no gradient.
    """

    __hash__ = str.__hash__

    def lower(self):
        return self

    def __eq__(self, other):
        return str(other) == "meta"

    def __ne__(self, other):
        return not self == other


def meta_device():
    """Return a context in which Keras makes tensors without values."""
    return keras.device(_Meta("meta"))


def make_task(recipe, dtype="float32"):
    """Return a recipe's task, which has no memory in `meta_device()`.

    Args:
        recipe: a `Recipe`.
        dtype: str, a dtype or the name of a dtype policy.
    """
    width, heads, text_layers, image_layers, patch = SIZES[recipe.size]
    side = recipe.image_size
    shared = {"hidden_dim": width, "num_heads": heads, "dtype": dtype}
    shared["intermediate_dim"] = 4 * width
    backbone = BridgeTowerBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=patch,
            num_layers=image_layers,
            image_shape=(side, side, 3),
            **shared,
        ),
        keras_hub.models.RobertaBackbone(
            VOCABULARY, num_layers=text_layers, **shared
        ),
        num_layers=min(LAYERS, text_layers, image_layers),
        bridge=recipe.bridge,
        dropout=recipe.dropout,
        **shared,
    )
    labels = [*map(str, range(CLASSES.get(recipe.task, 0)))]
    cls, values = class_and_values(recipe, labels)
    return cls(backbone, **values)


def weight_bytes(task, devices=1, kind="data_parallel"):
    """Return bytes on each device, as a dict. AdamW has two slots a weight.

    Args:
        task: a task.
        devices: int.
        kind: `"data_parallel"` or `"fsdp"`, which splits weights over devices.
    """

    def share(weight):
        size = weight.value.numel() * weight.value.element_size()
        splits = any(n % devices == 0 for n in weight.shape)
        return size / devices if kind == "fsdp" and splits else size

    trained = sum(map(share, task.trainable_weights))
    return {
        "weights": sum(map(share, task.weights)),
        "gradients": trained,
        "optimizer": 2 * trained,
    }


def features(task, rows, tokens, device="meta"):
    """Return features of a batch that a task takes, as a dict of ones.

    Args:
        task: a task.
        rows, tokens: int, samples and tokens of each text.
        device: str, name of a device of PyTorch.
    """
    import torch

    found = {}
    for name, tensor in task.input.items():
        # Of masked positions there are no more than tokens.
        shape = (rows, *(tokens if n is None else n for n in tensor.shape[1:]))
        dtype = getattr(torch, tensor.dtype)
        found[name] = torch.ones(shape, dtype=dtype, device=device)
    return found


def activation_bytes(task, x):
    """Return the bytes that autograd keeps of a training step's forward pass.

    Weights are not counted.

    Args:
        task: a task.
        x: features of a batch.
    """
    import torch

    # What was seen is held, so that no memory is found twice under one name.
    seen = {_memory(w.value): w.value for w in task.weights}
    kept = []

    def keep(tensor):
        if seen.setdefault(_memory(tensor), tensor) is tensor:
            kept.append(tensor.untyped_storage().nbytes())
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        task(x, training=True)
    return sum(kept)


def _memory(tensor):
    return tensor.untyped_storage()._cdata


def step_operations(task, x):
    """Return the floating-point operations of a forward and a backward pass.

    Counted are those of matrices, convolutions and attention, a multiplication
    and an addition as two.

    Args:
        task: a task.
        x: features of a batch.
    """
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        outputs = keras.tree.flatten(task(x, training=True))
        sum(o.sum() for o in outputs if o.requires_grad).backward()
    return counter.get_total_flops()
