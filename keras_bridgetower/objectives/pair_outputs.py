"""Compute the outputs of a task for the pairs that an objective drew."""

from keras import ops

from keras_bridgetower.models.fusion import with_weight
from keras_bridgetower.models.heads import contrastive_features
from keras_bridgetower.models.heads import embedding_kinds
from keras_bridgetower.objectives import pair_objectives
from keras_bridgetower.objectives.losses import pack_embeddings


def pair_outputs(names, objective, backbone, heads, text, image, inputs):
    """Compute the outputs of the matching and the contrastive head.

    Args:
        names: names of the heads to run, all in `objective.heads`.
        objective: `Objective`.
        backbone: a `BridgeTowerBackbone`.
        heads: mapping from name to head.
        text: list of float tensors, states of the text tower.
        image: list of float tensors, states of the image tower.
        inputs: dict of features, including those of `objective.drawn`.

    Returns:
        dict from the names of heads to logits of the drawn pairs, and from
        `"itc"` to a dict of embeddings of the true pairs.
    """

    def fuse(text, image, padding_mask):
        fused = backbone.fusion(text, image, padding_mask, outputs=("pooled",))
        return fused["pooled"]

    batch = pair_objectives.Batch(text, image, inputs)
    outputs, pooled, scored = {}, None, None
    if "itc" in names:
        head = heads["itc"]
        vectors = contrastive_features(backbone.fusion, head.ways, text, image)
        embeddings = head(vectors)
        # The vectors only determine the graph of the factor.
        factor = with_weight(_factor, embeddings["text"], head.logit_scale)
        scored = embeddings["text"], embeddings["image"], factor
    pair_head = objective.heads[0]
    if pair_head in names:
        outputs[pair_head], pooled = objective.logits(
            fuse, heads, batch, scored
        )
        outputs |= objective.other_logits(fuse, heads, batch)
    if "itc" in names:
        if "fused" in embedding_kinds(head.ways):
            if pooled is None:
                pooled = fuse(text, image, batch.padding_mask)
            embeddings |= head({"fused": pooled})
        outputs["itc"] = embeddings
    return outputs


def _factor(vectors, logit_scale):
    # Keras reads weights in half precision if the policy is.
    return ops.cast(ops.exp(logit_scale), "float32")


def with_packed(outputs, *logit_scale):
    """Return outputs with the embeddings packed into one tensor, for losses.

    Args:
        outputs: dict of outputs.
        *logit_scale: the scale of the contrastive head; omitted for metrics.
    """
    if "itc" not in outputs:
        return outputs
    packed = pack_embeddings(outputs["itc"], *logit_scale)
    return {**outputs, "itc": packed}
