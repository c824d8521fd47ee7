"""Counts the memory and the operations of training from shapes alone.

Tasks are built and run on PyTorch's "meta" device, whose tensors have shapes
and no values. Activations are what PyTorch's autograd keeps for the backward
pass; what JAX and TensorFlow keep differs by what their compilers fuse.
"""

import keras
import keras_hub

from keras_bridgetower.models.backbone import BridgeTowerBackbone
from keras_bridgetower.training.recipes.task_of_recipe import LAYERS
from keras_bridgetower.training.recipes.task_of_recipe import class_and_values

# Width, heads, layers of the text and of the image encoder, patch side.
SIZES = {
    "base": (768, 12, 12, 12, 16),
    "large": (1024, 16, 24, 24, 14),
    "tiny": (16, 2, 2, 3, 8),
}
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


def make_task(recipe):
    """Return a recipe's task, which has no memory in `meta_device()`.

    Its encoders are CLIP and RoBERTa, of the size and dtype of the recipe.

    Args:
        recipe: a `Recipe`.
    """
    width, heads, text_layers, image_layers, patch = SIZES[recipe.size]
    side = recipe.image_size
    shared = {"hidden_dim": width, "num_heads": heads, "dtype": recipe.dtype}
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
        size = _bytes(weight)
        splits = any(n % devices == 0 for n in weight.shape)
        return size / devices if kind == "fsdp" and splits else size

    trained = sum(map(share, task.trainable_weights))
    return {
        "weights": sum(map(share, task.weights)),
        "gradients": trained,
        "optimizer": 2 * trained,
    }


def block_bytes(task):
    """Return the bytes of the weights of encoder and fusion blocks."""
    weights = {id(w): w for b in task.backbone.blocks for w in b.weights}
    return sum(map(_bytes, weights.values()))


def _bytes(weight):
    return weight.value.numel() * weight.value.element_size()


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
    """Return the bytes that autograd keeps of a task's forward pass.

    Weights are not counted, nor what the loss keeps.

    Args:
        task: a task.
        x: features of a batch.
    """
    kept = _Kept(task)
    with kept.counting():
        task(x, training=True)
    return kept.size


def output_bytes(task, x):
    """Return the bytes of logits, their losses' copies and their gradients.

    A loss keeps its probabilities in float32, as large as the logits.

    Args:
        task: a task.
        x: features of a batch.
    """
    import torch

    with torch.no_grad():
        outputs = keras.tree.flatten(task(x, training=False))
    return 3 * sum(4 * o.numel() for o in outputs)


def largest_block(task, x):
    """Return the most bytes that autograd keeps of one block.

    With `checkpoint_activations`, they are there while the block runs again.

    Args:
        task: a task that keeps its activations.
        x: features of a batch.
    """
    sizes, blocks = [0], task.backbone.blocks
    kept = _Kept(task)

    def measured(call):
        def run(*args, **kwargs):
            before = kept.size
            outputs = call(*args, **kwargs)
            sizes.append(kept.size - before)
            return outputs

        return run

    own = [block.call for block in blocks]
    for block, call in zip(blocks, own, strict=True):
        block.call = measured(call)
    try:
        with kept.counting():
            task(x, training=True)
    finally:
        for block in blocks:
            del block.call
    return max(sizes)


class _Kept:
    """Counts the bytes of tensors that autograd keeps, without weights."""

    def __init__(self, task):
        # What was seen is held, so that no memory is found twice under one
        # name.
        self._seen = {_memory(w.value): w.value for w in task.weights}
        self.size = 0

    def counting(self):
        import torch

        def keep(tensor):
            if self._seen.setdefault(_memory(tensor), tensor) is tensor:
                self.size += tensor.untyped_storage().nbytes()
            return tensor

        hooks = torch.autograd.graph.saved_tensors_hooks
        return hooks(keep, lambda tensor: tensor)


def _memory(tensor):
    """Return what is equal for tensors of one memory, also without values."""
    from torch.multiprocessing import reductions

    return reductions.StorageWeakRef(tensor.untyped_storage())


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
