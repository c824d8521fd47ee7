"""The table of the authors' recipes, with the source of each value."""

from keras_bridgetower.training.recipes.recipe import Recipe
from keras_bridgetower.training.recipes.recipe import unknown


def get(name):
    """Return a recipe by its name.

    Args:
        name: str, a key of `RECIPES`.

    Raises:
        ValueError: the name is unknown; the error suggests the nearest one.

    Example:

    ```python
    get("pretrain_base").batch_size  # 4096
    ```
    """
    if name not in RECIPES:
        raise ValueError(unknown("recipe", name, list(RECIPES)))
    return RECIPES[name]


# Settings that several recipes share.
_LARGE = dict(size="large", image_size=574)
_BLIP = dict(transform="blip_randaug_wohf")
_CLIP = dict(transform="clip_randaug", eval_transform="clip")
_PLAIN = dict(transform="clip", eval_transform="clip")
# The scripts mirror all pictures, even if the text mentions left or right.
# `_recipe` changes this.
_MIRRORED = dict(transform="blip_randaug_wc_official")
_METER = _CLIP | dict(source="METER's repository", bridge=None)
_PRETRAINING = _PLAIN | dict(
    task="Pretraining",
    dataset="coco+vg+cc3m+sbu",
    steps=100_000,
    objective=("mlm", "itm"),
)
_VQA = dict(task="VQA", dataset="vqav2", image_size=576)
_SNLI_VE = dict(task="Entailment", dataset="snli_ve")
_NLVR2 = dict(task="NLVR2", dataset="nlvr2")
_RETRIEVAL = dict(task="Retrieval", text_length=40)
_RANKING = _RETRIEVAL | dict(
    dataset="flickr30k", objective="ranking_and_matching"
)
_ITC = _RETRIEVAL | dict(objective="hard_negatives", projection_dim=256)
# The columns are the rate, its factor for heads, weight decay, warm-up, epochs,
# samples of an update, micro-batches, and the relative width of the head.
_NUMBERS = {
    "pretrain_base": (1e-5, 5.0, 0.01, 0.1, None, 4096, 2, None),
    "pretrain_large": (1e-5, 5.0, 0.01, 0.1, None, 4096, 4, None),
    "meter_pretrain": (1e-5, 5.0, 0.01, 0.1, None, 4096, 1, None),
    "vqa_base": (1e-5, 50.0, 0.05, 0.06, 10, 512, 1, 2.0),
    "vqa_large": (4e-6, 50.0, 0.05, 0.06, 10, 512, 1, 2.0),
    "vqa_base_without_pretraining": (2e-5, 50.0, 0.01, 0.1, 10, 512, 1, 1.0),
    "vqa_large_without_pretraining": (1e-5, 50.0, 0.01, 0.1, 10, 512, 1, 1.0),
    "snli_ve_base": (3e-6, 10.0, 0.01, 0.06, 5, 64, 1, 2.0),
    "nlvr2_base": (5e-6, 10.0, 0.008, 0.1, 10, 64, 1, 1.5),
    "flickr30k_ranking_base": (1.1e-5, 5.0, 0.01, 0.1, 20, 2048, 1, None),
    "flickr30k_base": (5e-6, 5.0, 0.01, 0.05, 20, 512, 8, None),
    "coco_base": (4.5e-6, 5.0, 0.01, 0.1, 30, 256, 2, None),
    "meter_vqa": (5e-6, 50.0, 0.01, 0.1, 10, 512, 1, 1.0),
    "meter_nlvr2": (1e-5, 10.0, 0.01, 0.1, 10, 256, 1, 1.0),
    "meter_snli_ve": (2e-6, 10.0, 0.01, 0.1, 5, 64, 1, 1.0),
    "meter_retrieval": (5e-6, 5.0, 0.01, 0.1, 10, 512, 1, None),
    "cifar": (1e-5, 1.0, 0.01, 0.06, 10, 512, 1, None),
    "glue": (1e-5, 1.0, 0.1, 0.06, 10, 16, 1, None),
}
_COLUMNS = (
    *("learning_rate", "head_factor", "weight_decay", "warmup", "epochs"),
    *("batch_size", "accumulation", "head_scale"),
)
_OTHERS = {
    "pretrain_base": _PRETRAINING
    | dict(
        source="pre_train.sh",
        image_size=288,
        note="64 GPUs x 32 rows x 2 micro-batches",
    ),
    "pretrain_large": _PRETRAINING
    | dict(
        source="pre_train_large.sh",
        size="large",
        image_size=294,
        note="64 GPUs x 16 rows x 4 micro-batches",
    ),
    "meter_pretrain": _METER
    | _PRETRAINING
    | dict(image_size=288, note="as BridgeTower's pre-training"),
    "vqa_base": _VQA | _BLIP | dict(source="ftfpt_base_vqa.sh"),
    "vqa_large": _VQA | _LARGE | _BLIP | dict(source="ftfpt_large_vqa.sh"),
    "vqa_base_without_pretraining": _VQA
    | _CLIP
    | dict(source="ftfs_base_vqa.sh"),
    "vqa_large_without_pretraining": _VQA
    | _LARGE
    | _CLIP
    | dict(source="ftfs_large_vqa.sh"),
    "snli_ve_base": _SNLI_VE | _MIRRORED | dict(source="ftfpt_base_snlive.sh"),
    "nlvr2_base": _NLVR2
    | _MIRRORED
    | dict(source="ftfpt_base_nlvr2.sh", head_dropout=0.1),
    "flickr30k_ranking_base": _RANKING
    | _MIRRORED
    | dict(
        source="ftfpt_base_irtr_flickr.sh",
        note="15 false texts, and matching beside them, of equal weight; the "
        "authors' code of it fails (docs/paper.md). 8 GPUs x 4 rows x 64 "
        "micro-batches",
    ),
    "flickr30k_base": _ITC
    | _MIRRORED
    | dict(
        dataset="flickr30k",
        source="ftfpt_base_irtr_itm_itc_flickr.sh",
        shortlist=128,
        note="8 GPUs x 8 rows x 8 micro-batches: contrast over 64 rows; the "
        "scripts draw hard negatives from the 8 rows of a GPU, this from 64",
    ),
    "coco_base": _ITC
    | _MIRRORED
    | dict(
        dataset="coco",
        source="ftfpt_base_irtr_itm_itc_coco.sh",
        shortlist=256,
        note="8 GPUs x 16 rows x 2 micro-batches: contrast over 128 rows; the "
        "scripts draw hard negatives from the 16 rows of a GPU, this from 128",
    ),
    "meter_vqa": _VQA | _METER,
    "meter_nlvr2": _NLVR2 | _METER | dict(image_size=288),
    "meter_snli_ve": _SNLI_VE | _METER,
    "meter_retrieval": _RANKING | _METER,
    "cifar": _PLAIN
    | dict(
        task="ImageClassifier",
        source="run_cifar.py",
        dataset="cifar10 or cifar100",
        image_size=224,
        note="rate 1e-5 or 2e-5, 10 or 100 epochs; the authors chose the best "
        "epoch on test",
    ),
    "glue": dict(
        task="TextClassifier",
        source="run_glue.py",
        dataset="glue",
        epsilon=1e-6,
        text_length=512,
        note="rate 1e-5 or 2e-5, batch 16 or 32, patience of 3 epochs",
    ),
}


def _recipe(name, numbers):
    """Return a recipe that does not mirror pictures whose text names a side."""
    numbers = dict(zip(_COLUMNS, numbers, strict=True))
    recipe = Recipe(name, **numbers, **_OTHERS[name])
    transform = recipe.transform.removesuffix("_official")
    if transform == recipe.transform:
        return recipe
    return recipe.replace(transform=transform)


RECIPES = {name: _recipe(name, numbers) for name, numbers in _NUMBERS.items()}
