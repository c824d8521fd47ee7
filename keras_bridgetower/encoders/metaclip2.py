"""MetaCLIP 2 (Chuang et al., 2025): CLIP's encoders, trained worldwide."""

import dataclasses

import keras_hub

from keras_bridgetower.encoders import clip
from keras_bridgetower.encoders.registry import register_encoder
from keras_bridgetower.encoders.roberta import PIECES


def _rules(sizes):
    """Return the rules of the vision encoder, which has no final norm."""
    return [
        rule
        for rule in clip.clip("", sizes["num_layers"])
        if not rule.keys[0].startswith("post_layernorm")
    ]


FILES = dataclasses.replace(
    clip.FILES,
    types=("metaclip_2", "metaclip_2_vision_model"),
    rules=_rules,
    unread=(*clip.FILES.unread, r"post_layernorm\..*|classifier\..*"),
)
TEXT_FILES = dataclasses.replace(
    clip.TEXT_FILES,
    types=("metaclip_2", "metaclip_2_text_model"),
    tokens=dataclasses.replace(PIECES, ids=("eos_token_id",), positions=77),
)


@register_encoder(
    keras_hub.models.MetaCLIP2VisionEncoder,
    "image",
    name="MetaCLIP 2",
    files=(FILES,),
    # The image processor of `transformers` for it is CLIP's.
    pixels=clip.PIXELS,
)
def states(encoder):
    # The norm of the pooled class token is a layer of MetaCLIP2Backbone, not
    # of the encoder. So these states have no final norm.
    return [block.output for block in encoder.encoder_layers]


register_encoder(
    keras_hub.models.MetaCLIP2TextEncoder,
    "text",
    name="MetaCLIP 2",
    summary="end",
    files=(TEXT_FILES,),
)(clip.text_states)
