"""What a task puts out for pairs that an objective drew."""

from keras import ops

from keras_bridgetower import objectives
from keras_bridgetower.heads import kinds_of
from keras_bridgetower.losses import pack_embeddings


def outputs_of_drawn(objective, backbone, heads, inputs, seed):
    """What the loss of an objective takes, for the pairs that it drew.

    Each image and each text is encoded once, however often it is used.

    Args:
        objective: `Objective`.
        backbone: a `BridgeTowerBackbone`.
        heads: mapping from name to head.
        inputs: dict of features, with those of `objective.drawn`.
        seed: `keras.random.SeedGenerator`.

    Returns:
        Float tensor of logits; where contrastive heads learn too, a dict of
        them and of packed embeddings.
    """
    fusion = backbone.fusion
    text = backbone.text_tower(
        {k: inputs[k] for k in backbone.text_tower.input}
    )
    image = backbone.image_tower(inputs["images"])

    def fuse(text, image, padding_mask):
        return fusion.join(text, image, padding_mask, ("pooled",))["pooled"]

    batch = objectives.Batch(
        fusion.project_text(text), fusion.project_image(image), inputs, seed
    )
    if "itc" not in objective.heads:
        return objective.logits(fuse, heads, batch)[0]
    head = heads["itc"]
    embeddings = head(
        objectives.contrastive_features(fusion, head.ways, text, image)
    )
    unit = (
        embeddings["text"],
        embeddings["image"],
        ops.exp(head.logit_scale),
    )
    logits, pooled = objective.logits(fuse, heads, batch, unit)
    if "fused" in kinds_of(head.ways):
        embeddings |= head({"fused": pooled})
    return {
        "itm": logits,
        "itc": pack_embeddings(embeddings, head.logit_scale),
    }
