r"""Title: Fine-tune by a recipe: the paper's run, or its miniature
Author: the keras_bridgetower maintainers
Date: 2026-11-25
Description: Prints the recipe and where it differs from the paper's, trains,
    saves a preset and ends with the scores beside the blind one.
Accelerator: none for the miniature, three minutes on one CPU core; GPUs or
    TPUs for the paper's runs

    python examples/finetune.py
    python examples/finetune.py vqa_base --init runs/pretrain_base-tiny/preset
    python examples/finetune.py vqa_base --data datasets/vqav2 \
        --init bridgetower_base_itm_mlm --set batch_size=64

It trains on all devices that are there (`--distribute none`: on one). With
PyTorch they need a process each; docs/guides/devices.md has the lines for
several hosts and for a TPU slice:

    torchrun --nproc-per-node=8 examples/finetune.py vqa_base ...

A run that was interrupted goes on when it is called again. Without `--data` it
is the miniature, on easy-VQA; without `--init` the model above the encoders
starts at random. Needs `pip install easy-vqa matplotlib`.
"""

import miniature_run

from keras_bridgetower.training import train
from keras_bridgetower.training.recipes.paper import RECIPES

if __name__ == "__main__":
    names = [
        n for n in train.recipe_names() if RECIPES[n].task != "Pretraining"
    ]
    miniature_run.main_with_figure(__doc__, names)
