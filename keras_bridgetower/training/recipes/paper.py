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
_LARGE_VQA = dict(size="large", image_size=574)
_PRETRAIN = dict(
    task="Pretraining",
    dataset="coco+vg+cc3m+sbu",
    transform="clip",
    eval_transform="clip",
    epochs=None,
    steps=100_000,
    batch_size=4096,
    objective=("mlm", "itm"),
)
_VQA = dict(task="VQA", dataset="vqav2", image_size=576, head_factor=50.0)
_PRETRAINED_VQA = _VQA | dict(
    transform="blip_randaug_wohf",
    weight_decay=0.05,
    warmup=0.06,
    head_scale=2.0,
)
_NEW_VQA = _VQA | dict(
    transform="clip_randaug", eval_transform="clip", head_scale=1.0
)
_METER = dict(
    source="METER's repository",
    transform="clip_randaug",
    eval_transform="clip",
    bridge=None,
)
# The scripts mirror all pictures, even if the text mentions left or right.
# `_with_sides` changes this.
_MIRRORED = dict(transform="blip_randaug_wc_official")
_ITC = _MIRRORED | dict(
    task="Retrieval",
    objective="hard_negatives",
    text_length=40,
    projection_dim=256,
)
_ROWS = (
    Recipe(
        "pretrain_base",
        source="pre_train.sh",
        image_size=288,
        accumulation=2,
        **_PRETRAIN,
        note="64 GPUs x 32 rows x 2 micro-batches",
    ),
    Recipe(
        "pretrain_large",
        source="pre_train_large.sh",
        size="large",
        image_size=294,
        accumulation=4,
        **_PRETRAIN,
        note="64 GPUs x 16 rows x 4 micro-batches",
    ),
    Recipe(
        "meter_pretrain",
        source="METER's repository",
        image_size=288,
        **_PRETRAIN,
        bridge=None,
        note="as BridgeTower's pre-training",
    ),
    Recipe("vqa_base", source="ftfpt_base_vqa.sh", **_PRETRAINED_VQA),
    Recipe(
        "vqa_large",
        source="ftfpt_large_vqa.sh",
        learning_rate=4e-6,
        **(_PRETRAINED_VQA | _LARGE_VQA),
    ),
    Recipe(
        "vqa_base_without_pretraining",
        source="ftfs_base_vqa.sh",
        learning_rate=2e-5,
        **_NEW_VQA,
    ),
    Recipe(
        "vqa_large_without_pretraining",
        source="ftfs_large_vqa.sh",
        **(_NEW_VQA | _LARGE_VQA),
    ),
    Recipe(
        "snli_ve_base",
        "Entailment",
        "ftfpt_base_snlive.sh",
        "snli_ve",
        learning_rate=3e-6,
        head_factor=10.0,
        warmup=0.06,
        epochs=5,
        batch_size=64,
        head_scale=2.0,
        **_MIRRORED,
    ),
    Recipe(
        "nlvr2_base",
        "NLVR2",
        "ftfpt_base_nlvr2.sh",
        "nlvr2",
        learning_rate=5e-6,
        head_factor=10.0,
        weight_decay=0.008,
        batch_size=64,
        head_scale=1.5,
        head_dropout=0.1,
        **_MIRRORED,
    ),
    Recipe(
        "flickr30k_ranking_base",
        "Retrieval",
        "ftfpt_base_irtr_flickr.sh",
        "flickr30k",
        learning_rate=1.1e-5,
        epochs=20,
        batch_size=2048,
        text_length=40,
        objective="ranking_and_matching",
        **_MIRRORED,
        note="15 false texts, and matching beside them, of equal weight; the "
        "authors' code of it fails (docs/paper.md). 8 GPUs x 4 rows x 64 "
        "micro-batches",
    ),
    Recipe(
        "flickr30k_base",
        dataset="flickr30k",
        source="ftfpt_base_irtr_itm_itc_flickr.sh",
        learning_rate=5e-6,
        warmup=0.05,
        epochs=20,
        accumulation=8,
        shortlist=128,
        **_ITC,
        note="8 GPUs x 8 rows x 8 micro-batches: contrast over 64 rows; the "
        "scripts draw hard negatives from the 8 rows of a GPU, this from 64",
    ),
    Recipe(
        "coco_base",
        dataset="coco",
        source="ftfpt_base_irtr_itm_itc_coco.sh",
        learning_rate=4.5e-6,
        epochs=30,
        batch_size=256,
        accumulation=2,
        shortlist=256,
        **_ITC,
        note="8 GPUs x 16 rows x 2 micro-batches: contrast over 128 rows; the "
        "scripts draw hard negatives from the 16 rows of a GPU, this from 128",
    ),
    Recipe("meter_vqa", learning_rate=5e-6, head_scale=1.0, **_VQA, **_METER),
    Recipe(
        "meter_nlvr2",
        task="NLVR2",
        dataset="nlvr2",
        image_size=288,
        head_factor=10.0,
        batch_size=256,
        head_scale=1.0,
        **_METER,
    ),
    Recipe(
        "meter_snli_ve",
        task="Entailment",
        dataset="snli_ve",
        learning_rate=2e-6,
        head_factor=10.0,
        epochs=5,
        batch_size=64,
        head_scale=1.0,
        **_METER,
    ),
    Recipe(
        "meter_retrieval",
        task="Retrieval",
        dataset="flickr30k",
        learning_rate=5e-6,
        text_length=40,
        objective="ranking_and_matching",
        **_METER,
    ),
    Recipe(
        "cifar",
        "ImageClassifier",
        "run_cifar.py",
        "cifar10 or cifar100",
        image_size=224,
        transform="clip",
        eval_transform="clip",
        head_factor=1.0,
        warmup=0.06,
        note="rate 1e-5 or 2e-5, 10 or 100 epochs; the authors chose the best "
        "epoch on test",
    ),
    Recipe(
        "glue",
        "TextClassifier",
        "run_glue.py",
        "glue",
        head_factor=1.0,
        weight_decay=0.1,
        epsilon=1e-6,
        warmup=0.06,
        batch_size=16,
        text_length=512,
        note="rate 1e-5 or 2e-5, batch 16 or 32, patience of 3 epochs",
    ),
)


def _with_sides(recipe):
    """Return a recipe that does not mirror pictures whose text names a side."""
    transform = recipe.transform.removesuffix("_official")
    if transform == recipe.transform:
        return recipe
    return recipe.replace(transform=transform)


RECIPES = {recipe.name: _with_sides(recipe) for recipe in _ROWS}
