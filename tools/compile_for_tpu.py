"""Compile a recipe's training step by the TPU compiler, without a TPU.

    KERAS_BACKEND=jax python tools/compile_for_tpu.py pretrain_base \
        --size tiny --devices v5e:2x2 --kind fsdp --rows 8

It prints a JSON object: bytes of each device beside its memory, operations,
what devices send by kind and dtype, seconds, and what should not be there:
float64, transfers to the host, custom calls. It needs libtpu, the extra `tpu`.

Source: `jax.experimental.topologies`, which describes devices that are not
there; `Compiled.memory_analysis` and `cost_analysis`.
"""

import argparse
import collections
import json
import math
import os
import pathlib
import re
import resource
import time
from unittest import mock

# Where there is no TPU, libtpu would wait for the metadata of a machine.
os.environ |= {
    "JAX_PLATFORMS": "cpu",
    "TPU_SKIP_MDS_QUERY": "1",
    "TPU_ACCELERATOR_TYPE": "v5litepod-16",
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_WORKER_ID": "0",
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",
}

import jax
import keras
import libtpu
import numpy as np
from jax.experimental import topologies

import keras_bridgetower as kbt
from keras_bridgetower import training
from keras_bridgetower.training import planning
from keras_bridgetower.training.recipes import task_of_recipe

KINDS = ("data_parallel", "fsdp", "model_parallel")
BYTES = {"pred": 1, "s8": 1, "u8": 1, "bf16": 2, "f16": 2, "s32": 4, "u32": 4}
BYTES |= {"f32": 4, "f64": 8, "s64": 8, "u64": 8}
_SENDS = "all-reduce|all-gather|reduce-scatter|all-to-all|collective-permute"
SENDS = re.compile(rf" = (.*?) ({_SENDS})(-start)?\(")
NUMBER = re.compile(r"channel_id=\d+")
ARRAY = re.compile(r"(\w+)\[([\d,]*)\]")


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipe")
    parser.add_argument("--size", choices=task_of_recipe.SIZES)
    parser.add_argument("--devices", default="v5e:2x2")
    parser.add_argument("--kind", choices=KINDS, default="data_parallel")
    parser.add_argument("--rows", type=int, default=8, help="of each device")
    parser.add_argument("--accumulation", type=int, default=1)
    parser.add_argument("--dtype", default="mixed_bfloat16")
    parser.add_argument("--checkpoint-activations", action="store_true")
    parser.add_argument("--layers", type=int, help="of each encoder")
    parser.add_argument("--text", help="file for the compiled program")
    given = parser.parse_args()
    recipe = training.recipes.get(given.recipe).replace(
        size=given.size or "base",
        dtype=given.dtype,
        accumulation=given.accumulation,
    )
    sizes = list(task_of_recipe.SIZES[recipe.size])
    if given.layers:
        sizes[2:4] = given.layers, given.layers
    with mock.patch.dict(task_of_recipe.SIZES, {recipe.size: tuple(sizes)}):
        task = task_of_recipe.on_new_encoders(recipe)
    if given.checkpoint_activations:
        task.backbone.checkpoint_activations()
    devices = tpu(given.devices)
    started = time.time()
    lowered = lower(task, recipe, devices, given.kind, given.rows)
    seconds = {"lower": round(time.time() - started, 1)}
    started = time.time()
    compiled = lowered.compile()
    if given.text:
        pathlib.Path(given.text).write_text(compiled.as_text())
    found = describe(compiled)
    seconds["compile"] = round(time.time() - started, 1)
    found["seconds"] = seconds
    found["memory"] = planning.DEVICES[given.devices.partition(":")[0]].memory
    found["parameters"] = task.count_params()
    found["peak_of_this_process"] = 1024 * (
        resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    )
    print(json.dumps({**vars(given), **found}, indent=2))


def tpu(name):
    """Return the devices of a topology, such as `"v5e:4x4"`."""
    libtpu.configure_library_path()
    found = topologies.get_topology_desc(platform="tpu", topology_name=name)
    return list(found.devices)


def lower(task, recipe, devices, kind, rows):
    """Lower the step that `fit` runs on the devices of a strategy.

    Args:
        task: a task of `on_new_encoders`, on the processor of this machine.
        recipe: its `Recipe`.
        devices: list of JAX devices, which need not exist.
        kind: str, one of `KINDS`.
        rows: int, of each device.

    Returns:
        `jax.stages.Lowered`.
    """
    task.compile(recipe.optimizer(100_000))
    task.optimizer.build(task.trainable_variables)
    # Creates the metrics, as `fit` does before the first step.
    task._symbolic_build(
        data_batch=keras.tree.map_structure(
            lambda x: keras.KerasTensor(x.shape, x.dtype.name),
            batch(task, recipe, rows),
        )
    )
    with mock.patch.object(
        keras.distribution, "list_devices", return_value=devices
    ):
        strategy = kbt.distribute(kind)
    layout = strategy.layout

    def array(x, placed):
        placed = getattr(placed, "backend_layout", placed)
        shape, dtype = tuple(x.shape), keras.backend.standardize_dtype(x.dtype)
        return jax.ShapeDtypeStruct(shape, dtype, sharding=placed)

    groups = (
        task.trainable_variables,
        task.non_trainable_variables,
        task.optimizer.variables,
        task.metrics_variables,
    )
    state = tuple(
        [array(v, layout.get_variable_layout(v)) for v in group]
        for group in groups
    )
    count = rows * len(devices)
    data = keras.tree.map_structure(
        lambda x: array(x, layout.get_data_layout(x.shape)),
        batch(task, recipe, count),
    )
    outputs = None, tuple([x.sharding for x in group] for group in state)
    step = jax.jit(task.train_step, donate_argnums=0, out_shardings=outputs)
    try:
        return step.lower(state, data)
    finally:
        keras.distribution.set_distribution(None)


def batch(task, recipe, rows):
    """Return features and labels of the shapes of a batch."""
    x, tokens = {}, recipe.text_length
    for name, tensor in task.input.items():
        # Any token of a text may be masked but its first and last one.
        length = tokens - 2 * (name == "mask_positions")
        sides = [length if n is None else n for n in tensor.shape[1:]]
        x[name] = np.ones((rows, *sides), tensor.dtype)
    labels = {
        "mlm": np.zeros((rows, tokens - 2), "int32"),
        "itm": np.zeros(rows, "int32"),
        "itc": np.zeros(rows, "int32"),
    }
    names = getattr(task, "objectives", None)
    if names:
        return x, {name: labels[name] for name in names}
    return x, np.zeros((rows, task.output.shape[-1]), "float32")


def describe(compiled):
    """Return bytes, operations and messages of a compiled step."""
    memory, text = compiled.memory_analysis(), compiled.as_text()
    # The text repeats a message in several computations, with its number.
    messages = {}
    for line in text.splitlines():
        if found := SENDS.search(line):
            number = NUMBER.search(line)
            messages.setdefault(number[0] if number else line, found.groups())
    sent = collections.defaultdict(lambda: [0, 0])
    for arrays, kind, starts in messages.values():
        found = [pair for pair in ARRAY.findall(arrays) if pair[1]]
        if starts and kind != "all-reduce":
            # What is sent stands before what is received.
            found = found[len(found) // 2 :]
        for dtype, sides in found:
            sides = map(int, sides.split(","))
            entry = sent[f"{kind} {dtype}"]
            entry[0] += 1
            entry[1] += BYTES.get(dtype, 0) * math.prod(sides)
    calls = re.findall(r'custom_call_target="([^"]+)"', text)
    return {
        "bytes": {
            "arguments": memory.argument_size_in_bytes,
            "outputs": memory.output_size_in_bytes,
            "temporary": memory.temp_size_in_bytes,
            "reused": memory.alias_size_in_bytes,
            "peak": memory.peak_memory_in_bytes,
        },
        "operations": (compiled.cost_analysis() or {}).get("flops"),
        "sent": {k: {"arrays": n, "bytes": b} for k, (n, b) in sent.items()},
        "float64": text.count("f64["),
        "host": len(re.findall(r"infeed|outfeed|send-to-host|S\(5\)", text)),
        "custom_calls": dict(collections.Counter(calls)),
    }


if __name__ == "__main__":
    main()
