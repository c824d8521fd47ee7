"""The parts of a model that can be exported alone: two towers and the fusion.

A program that ranks or searches runs each tower once for each picture and
text, keeps what it returns, and runs only the fusion for pairs.
"""

from keras import ops

from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.exporting.function import BATCH
from keras_bridgetower.models.exporting.function import TOKENS
from keras_bridgetower.models.exporting.function import Feature
from keras_bridgetower.models.exporting.function import Function
from keras_bridgetower.models.exporting.function import limits_of
from keras_bridgetower.models.exporting.function import whole
from keras_bridgetower.models.heads import contrastive_features

# Heads that read the pooled representation of one picture and one text.
POOLED_HEADS = ("vqa", "entailment", "itm", "rank")


def function_of(model, part=None):
    """A model or a part of it, as an exported function.

    Args:
        model: `BridgeTowerBackbone` or `BridgeTowerTask`.
        part: None for all of it, or a key of `PARTS`.

    Raises:
        ValueError: no such part, or a model that does not consist of them.
    """
    if part is None:
        return whole(model)
    check_choice("part", part, tuple(PARTS))
    backbone = getattr(model, "backbone", model)
    read = model.input
    if any(
        name not in read or len(read[name].shape) != len(x.shape)
        for name, x in backbone.input.items()
    ):
        raise ValueError(
            "`part` must be None for a task that reads one tower alone, or "
            "two pictures at a time. Export `task.backbone` with this part. "
            f"Received: part={part!r} of {type(model).__name__}"
        )
    features, run = PARTS[part](model, backbone)
    return Function(model, run, features, limits_of(model))


def _image_tower(model, backbone):
    def run(inputs):
        states = backbone.image_tower(inputs["images"])
        projected = backbone.fusion.project_image(states)
        return _tower_outputs(model, "image", states, projected)

    shape = (BATCH, *backbone.input["images"].shape[1:])
    return {"images": Feature(shape, "float32")}, run


def _text_tower(model, backbone):
    def run(inputs):
        states = backbone.text_tower(inputs)
        projected = backbone.fusion.project_text(states)
        return _tower_outputs(model, "text", states, projected)

    names = backbone.text_tower.input
    return {name: Feature((BATCH, TOKENS), "int32") for name in names}, run


def _tower_outputs(model, kind, states, projected):
    """States for the fusion, and the embedding, if the model has that head."""
    outputs = {"states": ops.cast(ops.stack(projected, axis=1), "float32")}
    heads = getattr(model, "heads", {})
    if "itc" in heads:
        head, fusion = heads["itc"], model.backbone.fusion
        vectors = contrastive_features(fusion, head.ways, **{kind: states})
        outputs["embedding"] = head(vectors)[kind]
    return outputs


def _fusion(model, backbone):
    fusion = backbone.fusion
    taps = sum(tap is not None for tap in fusion.taps)
    patches = backbone.image_tower.outputs[-1].shape[1]

    def states(x):
        return ops.unstack(ops.cast(x, fusion.compute_dtype), taps, axis=1)

    def run(inputs):
        heads = getattr(model, "heads", {})
        read = [name for name in POOLED_HEADS if name in heads]
        wanted = ("pooled",) if heads else ("text", "image", "pooled")
        if "mlm" in heads:
            wanted = ("text", "pooled")
        outputs = fusion.join(
            states(inputs["text_states"]),
            states(inputs["image_states"]),
            inputs["padding_mask"],
            wanted,
        )
        pooled = outputs["pooled"]
        outputs |= {f"{name}_logits": heads[name](pooled) for name in read}
        if "itc" in heads and heads["itc"].ways == "three_way":
            outputs["embedding"] = heads["itc"]({"fused": pooled})["fused"]
        return {k: ops.cast(x, "float32") for k, x in outputs.items()}

    width = fusion.hidden_dim
    return {
        "text_states": Feature((BATCH, taps, TOKENS, width), "float32"),
        "image_states": Feature((BATCH, taps, patches, width), "float32"),
        "padding_mask": Feature((BATCH, TOKENS), "int32"),
    }, run


PARTS = {
    "image_tower": _image_tower,
    "text_tower": _text_tower,
    "fusion": _fusion,
}
