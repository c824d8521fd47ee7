"""Compile a training step with few layers by the TPU compiler.

    KERAS_BACKEND=jax python tools/compile_for_tpu.py pretrain_base 1 \
        v5e:4x4 fsdp dtype=mixed_bfloat16

`keras-bridgetower plan --compile` compiles all layers, which takes too long for
large models; what each layer adds is the difference of two runs. It prints
what `training.compile_step` returns.
"""

import argparse
import json
import os
from unittest import mock

os.environ["JAX_PLATFORMS"] = "cpu"

from keras_bridgetower import training
from keras_bridgetower.training import train
from keras_bridgetower.training.recipes import task_of_recipe


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("layers", type=int, help="of each encoder")
    parser.add_argument("topology")
    parser.add_argument("kind")
    parser.add_argument("changes", nargs="*", help="of fields of the recipe")
    given = parser.parse_args()
    recipe = training.recipes.get(given.recipe)
    recipe = train.with_changes(recipe, given.changes)
    sizes = list(task_of_recipe.SIZES[recipe.size])
    sizes[2:4] = given.layers, given.layers
    with mock.patch.dict(task_of_recipe.SIZES, {recipe.size: tuple(sizes)}):
        found = training.compile_step(recipe, given.topology, given.kind)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
