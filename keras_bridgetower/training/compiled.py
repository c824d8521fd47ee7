"""Compiles a training step by the TPU compiler, which needs no TPU."""

import collections
import contextlib
import math
import os
import re
import time

import keras

from keras_bridgetower.backend.keras_private import training as keras_training
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import load_extra
from keras_bridgetower.distribution.distribute import distribute
from keras_bridgetower.training.planning import DEVICES
from keras_bridgetower.training.recipes import task_of_recipe

# Kind, whether it starts a message that ends later, and number.
_SENT = re.compile(
    r" = (.*?) (all-reduce|all-gather|reduce-scatter|all-to-all|"
    r"collective-permute)(-start)?\(.*?(channel_id=\d+)"
)
_ARRAY = re.compile(r"([a-z]+(\d*))\[([\d,]+)\]")
_UNREAD = "cannot be read back by XLA, so what it sends is unknown"
_WARNINGS = {
    r"\bf64\[": "computes in float64",
    r"infeed|outfeed|send-to-host|S\(5\)": "waits for the host",
}


def compile_step(recipe, topology, kind="data_parallel"):
    """Compile the step that `fit` runs for TPUs. Needs the backend JAX.

    Each device gets its part of a batch. Weights of this size are made in the
    memory of this machine. It takes minutes. Set `JAX_PLATFORMS=cpu` before.

    Args:
        recipe: a `Recipe`. Its encoders are taken for CLIP and RoBERTa of its
            size.
        topology: str, devices as libtpu names them, such as `"v5e:8x8"`.
        kind: str, as `distribute` takes it.

    Returns:
        dict: bytes of each device as `"argument"`, `"output"`, `"temporary"`,
        `"peak"`, its `"memory"`, and what it sends by kind and dtype, as
        `"all-reduce bf16"`; floating-point operations of each device as
        `"operations"`; `"seconds"` to compile; `"warnings"`, a list of str.

    Raises:
        ValueError: another backend, an unknown device or kind, or devices
            that do not divide a batch.
        ImportError: libtpu is not installed.

    Example:

    ```python
    recipe = training.recipes.get("pretrain_base")
    training.compile_step(recipe, "v5e:8x8", "fsdp")["peak"]
    ```

    Source: `jax.experimental.topologies`, which describes devices that are
    not there; `Compiled.memory_analysis` and `cost_analysis`.
    """
    check_choice("KERAS_BACKEND", keras.config.backend(), ["jax"])
    check_choice("topology", topology.partition(":")[0], DEVICES)
    from jax.experimental import topologies

    # Where there is no TPU, libtpu would wait for the metadata of a machine.
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")
    load_extra("libtpu", "tpu").configure_library_path()
    found = topologies.get_topology_desc(topology, "tpu")
    started = time.perf_counter()
    compiled = lowered(recipe, list(found.devices), kind).compile()
    found = measured(compiled) | {
        "memory": int(DEVICES[topology.partition(":")[0]].memory),
        "seconds": round(time.perf_counter() - started),
    }
    found["warnings"] += ["does not fit"] * (found["peak"] > found["memory"])
    return found


def measured(compiled):
    """Return what a `jax.stages.Compiled` says, as `compile_step` does."""
    import jax

    memory, text, warnings = compiled.memory_analysis(), "", [_UNREAD]
    # XLA cannot read back its programs for v6e.
    with contextlib.suppress(jax.errors.JaxRuntimeError):
        text, warnings = compiled.as_text(), []
    return {
        "argument": memory.argument_size_in_bytes,
        "output": memory.output_size_in_bytes,
        "temporary": memory.temp_size_in_bytes,
        "peak": memory.peak_memory_in_bytes,
        **_sent(text),
        # The compiler for CUDA counts none.
        "operations": int((compiled.cost_analysis() or {}).get("flops", 0)),
        "warnings": warnings
        + [why for sign, why in _WARNINGS.items() if re.search(sign, text)],
    }


def lowered(recipe, devices, kind):
    """Return the `jax.stages.Lowered` of a step.

    Args:
        recipe, kind: as of `compile_step`.
        devices: list of JAX devices, which need not exist.
    """
    import jax

    task = task_of_recipe.on_new_encoders(recipe)
    if recipe.checkpoint_activations:
        task.backbone.checkpoint_activations()
    task.compile(recipe.optimizer(1))
    task.optimizer.build(task.trainable_variables)
    batch = task_of_recipe.batch(task, recipe, recipe.micro_batch_size)
    keras_training.build_from_spec(task, batch)
    layout = distribute(kind, devices=devices).layout

    def array(x, placed):
        dtype = keras.backend.standardize_dtype(x.dtype)
        placed = getattr(placed, "backend_layout", placed)
        return jax.ShapeDtypeStruct(x.shape, dtype, sharding=placed)

    state = tuple(
        [array(v, layout.get_variable_layout(v)) for v in variables]
        for variables in (
            *(task.trainable_variables, task.non_trainable_variables),
            *(task.optimizer.variables, task.metrics_variables),
        )
    )
    data = keras.tree.map_structure(
        lambda x: array(x, layout.get_data_layout(x.shape)), batch
    )
    places = None, tuple([x.sharding for x in group] for group in state)
    step = jax.jit(task.train_step, donate_argnums=0, out_shardings=places)
    try:
        return step.lower(state, data)
    finally:
        distribute("none")


def _sent(text):
    """Return bytes that a device sends, by kind and dtype."""
    # The text repeats a message in several computations, with its number.
    messages = {found[-1]: found[:-1] for found in _SENT.findall(text)}
    sent = collections.Counter()
    for arrays, kind, starts in messages.values():
        arrays = _ARRAY.findall(arrays)
        if starts and kind != "all-reduce":
            # What is sent stands before what is received.
            arrays = arrays[len(arrays) // 2 :]
        for dtype, bits, sides in arrays:
            count = math.prod(map(int, sides.split(",")))
            sent[f"{kind} {dtype}"] += count * int(bits or 8) // 8
    return sent
