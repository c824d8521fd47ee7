"""SigLIP, SigLIP 2 and MetaCLIP 2; the text encoder of CLIP."""

import numpy as np
import torch
import transformers
from peers import LENGTH
from peers import pixels
from peers import randomised
from peers import with_norm
from peers_first import IMAGE
from peers_first import TEXT
from peers_first import clip
from peers_first import image
from peers_first import image_states
from peers_first import text

NAFLEX = {k: v for k, v in IMAGE.items() if k != "image_size"}
# The tokenizer adds a start token.
FIXED = TEXT | {"max_position_embeddings": LENGTH - 1}


def siglip(**changed):
    """SigLIP, with changed values of its image encoder."""
    config = transformers.SiglipConfig(
        text_config=FIXED, vision_config=IMAGE | changed
    )
    return randomised(transformers.SiglipModel(config))


def siglip2():
    config = transformers.Siglip2Config(
        text_config=FIXED, vision_config=NAFLEX | {"num_patches": 16}
    )
    return randomised(transformers.Siglip2Model(config))


def metaclip2(act="quick_gelu"):
    config = transformers.MetaClip2Config(
        text_config=TEXT | {"hidden_act": act},
        vision_config=IMAGE | {"hidden_act": act},
    )
    return randomised(transformers.MetaClip2Model(config))


def naflex_states(model, images):
    """States of square pictures, cut to patches row by row."""
    cells = images.reshape(2, 4, 8, 4, 8, 3).transpose(0, 1, 3, 2, 4, 5)
    part = model.vision_model
    with torch.no_grad():
        found = part(
            torch.tensor(cells.reshape(2, 16, -1)),
            torch.ones((2, 16), dtype=torch.int64),
            torch.tensor([[4, 4]] * 2),
            output_hidden_states=True,
        )
    return with_norm(found.hidden_states[1:], part.post_layernorm)


def metaclip2_states(model, images):
    """States without the norm of the pooled token."""
    with torch.no_grad():
        found = model.vision_model(
            pixels(images),
            output_hidden_states=True,
            interpolate_pos_encoding=True,
        )
    return [x.numpy() for x in found.hidden_states[1:]]


def text_states(first, mask=True):
    """Return a function that reads the states of a text encoder.

    Args:
        first: int, the ids before it are not the encoder's.
        mask: bool, whether the encoder gets the padding mask.
    """

    def states(model, inputs):
        part = model.text_model
        values = {"output_hidden_states": True}
        if mask:
            values["attention_mask"] = torch.tensor(inputs["padding_mask"])
        ids = np.int64(inputs["token_ids"][:, first:])
        with torch.no_grad():
            found = part(torch.tensor(ids), **values)
        return with_norm(found.hidden_states[1:], part.final_layer_norm)

    return states


def of_images(name, make, norm="post_layernorm", without=("head",), **kwargs):
    return image(name, make, "vision_model", norm, without, **kwargs)


def of_texts(name, make, first=0, masked=True, **kwargs):
    values = dict(states=text_states(first, masked), masked=masked)
    return text(name, make, "text_model", ["head"], **values | kwargs)


IMAGE_STATES = image_states(lambda m: m.vision_model, "post_layernorm")
PEERS = [
    of_images("SigLIP", siglip),
    # It resizes positions by another filter.
    of_images(
        "SigLIP 2 (NaFlex)", siglip2, states=naflex_states, resizes=False
    ),
    *(
        of_images(
            f"MetaCLIP 2 ({act})",
            lambda act=act: metaclip2(act),
            without=["head", "post_layernorm"],
            states=metaclip2_states,
        )
        for act in ("quick_gelu", "gelu")
    ),
    of_texts("SigLIP", siglip, 1, masked=False),
    of_texts("SigLIP 2", siglip2, 1, masked=False),
    of_texts("MetaCLIP 2", metaclip2, summary="start"),
    of_texts("CLIP", clip, summary="start"),
]
