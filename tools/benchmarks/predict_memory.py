r"""Predict the memory that training needs on each device, from shapes.

    python tools/benchmarks/predict_memory.py pretrain_base --devices 64
    python tools/benchmarks/predict_memory.py vqa_large --kind fsdp --devices 8
    python tools/benchmarks/predict_memory.py vqa_base --set batch_size=64 \
        --dtype mixed_bfloat16

Nothing is computed and no memory is taken: the model is built and run on
PyTorch's "meta" device, where tensors are shapes. Activations are what
PyTorch's autograd keeps for the backward pass; what JAX and TensorFlow keep
differs by what their compilers fuse. Work space comes on top.
"""

import argparse
import os

os.environ["KERAS_BACKEND"] = "torch"

import keras  # noqa: E402
import keras_hub  # noqa: E402
import torch  # noqa: E402

import keras_bridgetower as kbt  # noqa: E402
from keras_bridgetower.training import train  # noqa: E402
from keras_bridgetower.training.recipes.paper import RECIPES  # noqa: E402
from keras_bridgetower.training.recipes.task_of_recipe import class_and_values  # noqa: E402

# Width, heads, layers of the text and of the image encoder, patch side.
SIZES = {
    "base": (768, 12, 12, 12, 16),
    "large": (1024, 16, 24, 24, 14),
    "tiny": (16, 2, 2, 3, 8),
}
VOCABULARY = 50_265
# Classes that are learnt, where the number is not the task's own.
CLASSES = {"VQA": 3_129, "ImageClassifier": 100, "TextClassifier": 2}
GIB = 1024**3


class Meta(str):
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


def make_task(recipe, dtype="float32"):
    """Return a recipe's task; on the device `Meta("meta")` it has no memory."""
    width, heads, text_layers, image_layers, patch = SIZES[recipe.size]
    side = recipe.image_size
    shared = {"hidden_dim": width, "num_heads": heads, "dtype": dtype}
    shared["intermediate_dim"] = 4 * width
    backbone = kbt.BridgeTowerBackbone(
        keras_hub.models.CLIPVisionEncoder(
            patch_size=patch,
            num_layers=image_layers,
            image_shape=(side, side, 3),
            **shared,
        ),
        keras_hub.models.RobertaBackbone(
            VOCABULARY, num_layers=text_layers, **shared
        ),
        num_layers=min(6, text_layers, image_layers),
        bridge=recipe.bridge,
        dropout=recipe.dropout,
        **shared,
    )
    labels = [*map(str, range(CLASSES.get(recipe.task, 0)))]
    cls, values = class_and_values(recipe, labels)
    return cls(backbone, **values)


def weights_of(task, devices, kind):
    """Return bytes on each device; the optimizer has two slots, as AdamW."""

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


def kept_by(task, batch, tokens, device="meta"):
    """Return bytes that autograd keeps of a training step's forward pass.

    Weights are not counted. `batch` are the rows on this device.
    """
    # What was seen is held, so that no memory is found twice under one name.
    seen = {_memory(w.value): w.value for w in task.weights}
    kept = []

    def keep(tensor):
        if seen.setdefault(_memory(tensor), tensor) is tensor:
            kept.append(tensor.untyped_storage().nbytes())
        return tensor

    x = {}
    for name, tensor in task.input.items():
        # Of masked positions there are no more than tokens.
        shape = (batch, *(tokens if n is None else n for n in tensor.shape[1:]))
        dtype = getattr(torch, tensor.dtype)
        x[name] = torch.ones(shape, dtype=dtype, device=device)
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        task(x, training=True)
    return sum(kept)


def _memory(tensor):
    return tensor.untyped_storage()._cdata


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    names = list(RECIPES)
    parser.add_argument("recipe", choices=names, nargs="?", default="vqa_base")
    parser.add_argument("--set", nargs="+", default=[], metavar="FIELD=VALUE")
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument(
        "--kind", choices=("data_parallel", "fsdp"), default="data_parallel"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--checkpoint", action="store_true")
    arguments = parser.parse_args()
    recipe = train.with_changes(RECIPES[arguments.recipe], arguments.set)
    parts = arguments.devices * recipe.accumulation
    if recipe.batch_size % parts:
        parser.error(
            "--devices times accumulation must divide batch_size, "
            f"{recipe.batch_size}. Received: {arguments.devices}"
        )
    print(recipe)
    with keras.device(Meta("meta")):
        task = make_task(recipe, arguments.dtype)
        if arguments.checkpoint:
            task.backbone.checkpoint_activations()
        rows = weights_of(task, arguments.devices, arguments.kind)
        rows["activations"] = kept_by(
            task, recipe.batch_size // parts, recipe.text_length
        )
    if recipe.accumulation > 1:
        rows["accumulated"] = rows["gradients"]
    print(f"{task.count_params():,} parameters, on each device in GiB:")
    for name, size in {**rows, "together": sum(rows.values())}.items():
        print(f"  {name:12} {size / GIB:8.2f}")
    if arguments.checkpoint:
        print("and once more what one block keeps while it is computed again")


if __name__ == "__main__":
    main()
