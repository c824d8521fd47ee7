"""Predict the memory that training needs on each device, from shapes.

    python tools/memory.py --size base --batch 64 --devices 8
    python tools/memory.py --size large --kind fsdp --devices 8 --checkpoint
    python tools/memory.py --image-size 576 --dtype mixed_bfloat16

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

# Width, heads, layers of the text and of the image encoder, patch side and
# the usual image side.
SIZES = {
    "base": (768, 12, 12, 12, 16, 288),
    "large": (1024, 16, 24, 24, 14, 294),
    "tiny": (16, 2, 2, 3, 8, 32),
}
VOCABULARY, ANSWERS = 50_265, 3_129
GIB = 1024**3


class Meta(str):
    """The name of the meta device, equal to PyTorch's own object of it.

    Keras compares the two, finds them to differ and copies what is there
    already, and the copy has no gradient.
    """

    __hash__ = str.__hash__

    def lower(self):
        return self

    def __eq__(self, other):
        return str(other) == "meta"

    def __ne__(self, other):
        return not self == other


def make_task(size, image_size=None, dtype="float32"):
    """A VQA task without memory, under `keras.device(Meta("meta"))`."""
    width, heads, text_layers, image_layers, patch, usual_side = SIZES[size]
    side = image_size or usual_side
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
        **shared,
    )
    return kbt.BridgeTowerVQA(backbone, answers=list(map(str, range(ANSWERS))))


def weights_of(task, devices, kind):
    """Bytes on each device.

    Args:
        task: a task.
        devices: int.
        kind: `"data_parallel"` or `"fsdp"`.

    Returns:
        dict of `"weights"`, `"gradients"`, `"optimizer"` (two slots, as
        AdamW has them).
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


def kept_by(task, batch, tokens, device="meta"):
    """Bytes that autograd keeps of a training step's forward pass.

    Args:
        task: a task; its weights are not counted.
        batch: int, rows on this device.
        tokens: int, text tokens of a row.
        device: str, where the task is.

    Returns:
        int.
    """
    # What was seen is held, so that no memory is found twice under one name.
    seen = {_memory(w.value): w.value for w in task.weights}
    kept = []

    def keep(tensor):
        if seen.setdefault(_memory(tensor), tensor) is tensor:
            kept.append(tensor.untyped_storage().nbytes())
        return tensor

    side = task.backbone.image_size
    ids = torch.ones((batch, tokens), dtype=torch.int32, device=device)
    x = {
        "images": torch.ones((batch, side, side, 3), device=device),
        "token_ids": ids,
        "padding_mask": ids,
    }
    with torch.autograd.graph.saved_tensors_hooks(keep, lambda t: t):
        task(x, training=True)
    return sum(kept)


def _memory(tensor):
    return tensor.untyped_storage()._cdata


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("--size", choices=SIZES, default="base")
    parser.add_argument("--batch", type=int, default=64, help="global batch")
    parser.add_argument("--image-size", type=int)
    parser.add_argument("--text-length", type=int, default=50)
    parser.add_argument("--devices", type=int, default=1)
    parser.add_argument(
        "--kind", choices=("data_parallel", "fsdp"), default="data_parallel"
    )
    parser.add_argument("--dtype", default="float32")
    parser.add_argument("--checkpoint", action="store_true")
    parser.add_argument("--freeze-towers", action="store_true")
    parser.add_argument("--lora", type=int, help="rank of adapters")
    arguments = parser.parse_args()
    if arguments.batch % arguments.devices:
        parser.error("--devices must divide --batch")
    with keras.device(Meta("meta")):
        task = make_task(arguments.size, arguments.image_size, arguments.dtype)
        backbone = task.backbone
        if arguments.freeze_towers:
            backbone.image_tower.trainable = False
            backbone.text_tower.trainable = False
        if arguments.lora:
            task.enable_lora(arguments.lora)
        if arguments.checkpoint:
            backbone.checkpoint_activations()
        rows = weights_of(task, arguments.devices, arguments.kind)
        rows["activations"] = kept_by(
            task, arguments.batch // arguments.devices, arguments.text_length
        )
    print(f"{task.count_params():,} parameters, on each device in GiB:")
    for name, size in {**rows, "together": sum(rows.values())}.items():
        print(f"  {name:12} {size / GIB:8.2f}")
    if arguments.checkpoint:
        print("and once more what one block keeps while it is computed again")


if __name__ == "__main__":
    main()
