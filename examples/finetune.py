"""Title: Fine-tune by a recipe, in miniature
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Prints the recipe and where it differs from the paper's, trains,
    saves a preset and ends with the scores beside the blind one.
    `keras-bridgetower train` is the same with data of your own.
Accelerator: none; three minutes on one CPU core

    python examples/finetune.py
    python examples/finetune.py vqa_base --init runs/pretrain_base-tiny/preset
    torchrun --nproc-per-node=2 examples/finetune.py vqa_base

A run that was interrupted goes on when it is called again. Without `--init` the
model above the encoders starts at random. Needs
`pip install easy-vqa matplotlib`.
"""

import miniature_run

from keras_bridgetower.training.recipes.paper import RECIPES
from keras_bridgetower.training.recipes.task_of_recipe import RECORD_TASKS

if __name__ == "__main__":
    trained = {*RECORD_TASKS} - {"Pretraining"}
    names = [n for n, recipe in RECIPES.items() if recipe.task in trained]
    miniature_run.main_with_figure(__doc__, names)
