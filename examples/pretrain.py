r"""Title: Pre-train by a recipe: the paper's run, or its miniature
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Prints the recipe and where it differs from the paper's, trains,
    and saves a preset that opens in every task.
Accelerator: none for the miniature, three minutes on one CPU core; GPUs or
    TPUs for the paper's run

    python examples/pretrain.py
    python examples/pretrain.py pretrain_base \
        --data datasets/coco datasets/visual_genome datasets/sbu datasets/cc3m \
        --encoders clip_vit_base_patch16 roberta-base

A run that was interrupted goes on when it is called again. Without `--data` it
is the miniature, on captions of easy-VQA. Needs
`pip install easy-vqa matplotlib`.
"""

import miniature_run

from keras_bridgetower.training.recipes.paper import RECIPES

if __name__ == "__main__":
    names = [name for name, r in RECIPES.items() if r.task == "Pretraining"]
    miniature_run.main_with_figure(__doc__, names)
