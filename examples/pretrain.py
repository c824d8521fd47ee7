r"""Pre-train by a recipe: the paper's run, or its miniature.

    python examples/pretrain.py
    python examples/pretrain.py pretrain_base \
        --data datasets/coco datasets/visual_genome datasets/sbu datasets/cc3m \
        --encoders clip_vit_base_patch16 roberta-base

Prints the recipe and where it differs from the paper's, trains, and saves a
preset that opens in every task. A run that was interrupted goes on when it is
called again. Without `--data` it is the miniature, on captions of easy-VQA,
and takes about two minutes; needs `pip install easy-vqa`.
"""

import miniature_run

from keras_bridgetower.training.recipes.paper import RECIPES

if __name__ == "__main__":
    names = [name for name, r in RECIPES.items() if r.task == "Pretraining"]
    miniature_run.main(__doc__, names)
