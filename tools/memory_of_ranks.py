"""Measure the memory of one process of many that share weights on PyTorch.

    KERAS_BACKEND=torch python tools/memory_of_ranks.py vqa_base 64 \
        dtype=mixed_bfloat16 batch_size=256 accumulation=1

One process runs a training step on this CPU, with a process group whose other
members do not exist. PyTorch's `FSDPMemTracker` counts what is there at the
peak; it is printed in MB, beside what `keras-bridgetower plan` computes.
"""

import argparse
import json
import time

import torch.distributed as dist
from torch.distributed._tools.fsdp2_mem_tracker import FSDPMemTracker
from torch.testing._internal.distributed.fake_pg import FakeStore

from keras_bridgetower import training
from keras_bridgetower.distribution import torch_fsdp
from keras_bridgetower.training import planning
from keras_bridgetower.training import train
from keras_bridgetower.training.recipes import task_of_recipe


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("processes", type=int)
    parser.add_argument("changes", nargs="*", help="of fields of the recipe")
    given = parser.parse_args()
    recipe = training.recipes.get(given.recipe)
    recipe = train.with_changes(recipe, given.changes)
    started = time.perf_counter()
    found = {"measured": measure(recipe, given.processes)}
    found["seconds"] = round(time.perf_counter() - started)
    ways = training.plan(recipe, "h100", given.processes, rows=10**6).ways
    planned = {(way.kind, way.checkpoint): way.memory for way in ways}
    found["planned"] = planned["fsdp", recipe.checkpoint_activations]
    for name in ("measured", "planned"):
        found[name] = megabytes(found[name])
    print(json.dumps(found, indent=2))


def measure(recipe, processes):
    """Return bytes at the peak of a step, by what they hold, as a dict."""
    store = FakeStore()
    dist.init_process_group("fake", rank=0, world_size=processes, store=store)
    mesh = dist.init_device_mesh("cpu", (processes,), mesh_dim_names=("shard",))
    task = task_of_recipe.on_new_encoders(recipe)
    if recipe.checkpoint_activations:
        task.backbone.checkpoint_activations()
    task.compile(recipe.optimizer(100))
    shards = torch_fsdp.Shards(task, mesh)
    shards.train_with(task.optimizer)
    rows = recipe.batch_size // recipe.accumulation // processes
    batch = planning.ones_like(task_of_recipe.batch(task, recipe, rows))
    with shards.split():
        # The last part holds all others.
        tracker = FSDPMemTracker(shards._parts[-1])
        others = *task.optimizer.variables, *task.non_trainable_variables
        tracker.track_external(*(v.value for v in others))
        with tracker:
            task.train_step(batch)
    (peak,) = tracker.get_tracker_snapshot("peak").values()
    return peak


def megabytes(sizes):
    # The tracker's names are members of an enumeration.
    sizes = {getattr(name, "value", name): n for name, n in sizes.items()}
    sizes.setdefault("Total", sum(sizes.values()))
    return {name: round(n / 1e6, 1) for name, n in sizes.items()}


if __name__ == "__main__":
    main()
