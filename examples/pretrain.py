"""Title: Pre-train by a recipe, in miniature
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Prints the recipe and where it differs from the paper's, trains,
    and saves a preset that opens in every task. `keras-bridgetower train` is
    the same with data of your own.
Accelerator: none; three minutes on one CPU core

    python examples/pretrain.py

A run that was interrupted goes on when it is called again. Needs
`pip install easy-vqa matplotlib`.
"""

import miniature_run

from keras_bridgetower.training.recipes.paper import RECIPES

if __name__ == "__main__":
    names = [name for name, r in RECIPES.items() if r.task == "Pretraining"]
    miniature_run.main_with_figure(__doc__, names)
