"""Folders in the shapes of the published repositories, with small sizes.

What stands here was read off the repositories: which files there are, which
keys a file has, and which it leaves out.
"""

import collections
import dataclasses

import checkpoints
import peer
import tokenizer_files
import torch
import transformers

WIDTH, LAYERS, FUSED, HEADS = 64, 3, 2, 4
# Those of the configurations; one saved again has the default, and omits it.
ROWS, DEFAULT_ROWS = 60, 50_265
# Patch and side; 70 leaves 6 pixels over multiples of 32, as 294 does.
BASE, LARGE = (16, 64), (14, 70)
TEXT_LENGTH = 20


@dataclasses.dataclass(frozen=True)
class Repository:
    """A published repository: its size, heads, and whether it is a copy."""

    size: tuple
    heads: tuple
    copy: bool = False

    @property
    def rows(self):
        return DEFAULT_ROWS if self.copy else ROWS


REPOSITORIES = {
    "BridgeTower/bridgetower-base": Repository(BASE, ()),
    "BridgeTower/bridgetower-base-itm-mlm": Repository(BASE, ("itm", "mlm")),
    "BridgeTower/bridgetower-large-itm-mlm": Repository(LARGE, ("itm", "mlm")),
    "BridgeTower/bridgetower-large-itm-mlm-itc": Repository(
        LARGE, ("itm", "mlm", "itc")
    ),
    "BridgeTower/bridgetower-large-itm-mlm-gaudi": Repository(
        LARGE, ("itm", "mlm")
    ),
    "edlee123/bridgetower": Repository(LARGE, ("itc",), copy=True),
    "regisss/bridgetower-newyorker": Repository(LARGE, ("itc",), copy=True),
}
TEXT = dict(
    vocab_size=ROWS,
    hidden_size=WIDTH,
    num_hidden_layers=LAYERS,
    num_attention_heads=HEADS,
    intermediate_size=4 * WIDTH,
    hidden_act="gelu",
    max_position_embeddings=514,
    type_vocab_size=1,
    layer_norm_eps=1e-05,
    pad_token_id=1,
)
SHARED = dict(
    share_cross_modal_transformer_layers=True,
    drop_rate=0.1,
    head_hidden_scale=2,
    hidden_act="gelu",
    hidden_size=WIDTH,
    layer_norm_eps=1e-05,
    share_link_tower_layers=False,
    link_tower_type="add",
    num_attention_heads=HEADS,
    num_hidden_layers=FUSED,
    tie_word_embeddings=False,
)
CONTRASTIVE = {"contrastive_hidden_size": 24, "logit_scale_init_value": 2.6592}
# Left out by files that were saved again, as they equal the defaults.
DEFAULTS = {"vocab_size", "max_position_embeddings", "type_vocab_size"}
DEFAULTS |= {"hidden_act", "layer_norm_eps", "pad_token_id"}


def config(repository):
    """The values of a config.json: no model type but in copies."""
    patch, side = repository.size
    vision = dict(hidden_size=WIDTH, num_hidden_layers=LAYERS)
    vision |= dict(patch_size=patch, image_size=side)
    values = {**SHARED, "text_config": dict(TEXT), "vision_config": vision}
    if "itc" in repository.heads:
        values |= CONTRASTIVE
    if repository.copy:
        for name in DEFAULTS:
            del values["text_config"][name]
        classes = ["BridgeTowerForContrastiveLearning"]
        return {**values, "architectures": classes, "model_type": "bridgetower"}
    # The oldest files have the authors' name.
    last = "vit_remove_last" if patch == BASE[0] else "remove_last_layer"
    vision |= {"share_layernorm": True, last: False}
    return {**values, "text_config_dict": None, "vision_config_dict": None}


def image_processor(repository):
    """The values of a preprocessor_config.json."""
    side = repository.size[1]
    values = {"max_text_len": TEXT_LENGTH, "vocab_size": repository.rows}
    if repository.copy:
        steps = ("center_crop", "normalize", "pad", "rescale", "resize")
        return {
            **values,
            **{f"do_{step}": True for step in steps},
            "crop_size": None,
            "image_mean": [0.48145466, 0.4578275, 0.40821073],
            "image_processor_type": "BridgeTowerImageProcessor",
            "image_std": [0.26862954, 0.26130258, 0.27577711],
            "resample": 3,
            "rescale_factor": 0.00392156862745098,
            "size": {"shortest_edge": side},
            "size_divisor": 32,
        }
    if repository.size == BASE:
        return {**values, "image_size": side, "model_type": "bridgetower"}
    return {**values, "size": side}


def models(repository):
    """Random models of transformers that share a backbone, by head."""
    made = transformers.BridgeTowerConfig.from_dict(config(repository))
    matching = transformers.BridgeTowerForImageAndTextRetrieval(made)
    matching = peer.randomise(matching.eval())
    return {head: checkpoints.other_head(head, matching) for head in CLASSES}


CLASSES = checkpoints.HEADS


def save(folder, repository, theirs):
    """Write a folder in the shape of a repository.

    Args:
        folder: `pathlib.Path`.
        repository: a `Repository`.
        theirs: models as `models` returns them, of its size.
    """
    folder.mkdir(parents=True)
    named = [theirs[head] for head in repository.heads]
    state = collections.OrderedDict()
    # Without heads it is the state of the bare model, without its prefix.
    prefix = "bridgetower." if named else ""
    for model in named or [theirs["itm"].bridgetower]:
        state |= model.state_dict()
        state._metadata = model.state_dict()._metadata
    ids = f"{prefix}text_model.embeddings.position_ids"
    state[ids] = torch.arange(514)[None]
    torch.save(state, folder / "pytorch_model.bin")
    indent = None if repository.size == BASE else 4
    tokenizer_files.dump(folder / "config.json", config(repository), indent)
    tokenizer_files.dump(
        folder / "preprocessor_config.json", image_processor(repository)
    )
    form = "published" if indent is None else "published, indented"
    if repository.copy:
        form = "saved by transformers 4"
    tokenizer_files.write(folder, form, *tokenizer_files.few_words())
    (folder / "README.md").write_text("# BridgeTower\n")
