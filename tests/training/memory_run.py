"""Run alone: measure the memory of training steps, beside what is planned.

KERAS_BACKEND=torch python tests/training/memory_run.py RECIPE

Prints a list of both, in bytes.
"""

import json
import resource
import sys

import keras
import torch

from keras_bridgetower.training import planning
from keras_bridgetower.training import recipes

# In two of them the weights need most, in one the activations.
RECIPES = {
    "vqa_base": {"batch_size": 4, "image_size": 224},
    "pretrain_base": {"batch_size": 4, "image_size": 224, "accumulation": 1},
    "nlvr2_base": {"size": "tiny", "batch_size": 512, "image_size": 64},
}


def peak():
    return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


def train(recipe):
    """Train a recipe's task for two steps, on ones."""
    task = planning.make_task(recipe)
    optimizer = recipe.optimizer(100)
    x = planning.features(task, recipe.batch_size, recipe.text_length, "cpu")
    for _ in range(2):
        outputs = keras.tree.flatten(task(x, training=True))
        task.zero_grad()
        sum(o.mean() for o in outputs).backward()
        variables = task.trainable_variables
        with torch.no_grad():
            optimizer.apply([v.value.grad for v in variables], variables)


def main(name):
    recipe = recipes.get(name).replace(**RECIPES[name])
    found = planning.plan(recipe, "h100", 1, 10**6).ways[0]
    # What the libraries need for the first step.
    train(recipe.replace(size="tiny", image_size=32, batch_size=2))
    before = peak()
    train(recipe)
    print(json.dumps([peak() - before, found.needed]))


if __name__ == "__main__":
    main(*sys.argv[1:])
