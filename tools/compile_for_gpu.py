"""Compile a training step by XLA's compiler for CUDA, which needs no GPU.

    pip install jax-cuda12-plugin==$JAX jax-cuda12-pjrt==$JAX \
        nvidia-cuda-nvcc-cu12
    KERAS_BACKEND=jax python tools/compile_for_gpu.py pretrain_base \
        h100_sxm.txtpb 8 fsdp size=tiny dtype=mixed_bfloat16 batch_size=64

The description of a GPU is a file of `xla/backends/gpu/target_config/specs` in
XLA's repository; it needs a `runtime_version`. Without a GPU nothing can be
tuned, and XLA of JAX 0.10.2 then finds no tiles for some products in Triton,
so that products go to cuBLAS. Keras does not choose cuDNN's attention. It
prints what `training.compile_step` returns, without operations and `memory`.
"""

import argparse
import json
import os
import pathlib
import time

os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_gpu_enable_triton_gemm=false --xla_gpu_autotune_level=0 "
    + os.environ.get("XLA_FLAGS", "")
)

from jax.experimental import topologies

from keras_bridgetower import training
from keras_bridgetower.training import compiled
from keras_bridgetower.training import train


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("recipe")
    parser.add_argument("description", type=pathlib.Path)
    parser.add_argument("devices", type=int)
    parser.add_argument("kind")
    parser.add_argument("changes", nargs="*", help="of fields of the recipe")
    given = parser.parse_args()
    found = topologies.get_topology_desc(
        platform="cuda",
        topology_name="",
        target_config=given.description.read_text(),
        topology=f"1x1x{given.devices}",
    )
    recipe = training.recipes.get(given.recipe)
    recipe = train.with_changes(recipe, given.changes)
    started = time.perf_counter()
    step = compiled.lowered(recipe, list(found.devices), given.kind).compile()
    seconds = round(time.perf_counter() - started)
    print(json.dumps(compiled.measured(step) | {"seconds": seconds}, indent=2))


if __name__ == "__main__":
    main()
