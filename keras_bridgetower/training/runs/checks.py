"""Checks that a run may begin, or continue as it began."""

import dataclasses
import hashlib
import importlib
import importlib.metadata
import inspect
import json
import zlib

import keras
import numpy as np

from keras_bridgetower.backend.keras_private.layers import layers_in
from keras_bridgetower.data.records.format import written_without_addresses
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import differences as of_processes
from keras_bridgetower.preprocessing.geometry import check_transform
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.folders import CheckpointError

# Keys of Keras' configurations that are not compared: names with a counter of
# the process, places of classes, and built shapes.
_IGNORED = ("name", "module", "registered_name", "build_config")
# Maximum number of characters of a value. Longer values, such as thousands of
# answers, are replaced by their SHA-256.
_LONGEST = 200
_PACKAGES = ("keras", "keras-hub", "keras-bridgetower", "numpy")
# The value of `force` that allows another number of processes only.
HOSTS = "hosts"


@dataclasses.dataclass
class Position:
    """The position of a run: `step` batches of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0


# Arguments of `keras.Model.fit`.
_OF_THE_RUN = ("x", "y", "epochs", "initial_epoch", "steps_per_epoch")


def check_fit(model, callbacks, arguments):
    """Raise for options of Keras with which checkpoints would be wrong.

    Args:
        model: the compiled model.
        callbacks: list of the user's callbacks.
        arguments: dict of the user's other arguments of `keras.Model.fit`.

    Raises:
        ValueError: `steps_per_execution` above 1, a callback that sets weights
            which are in no checkpoint, or arguments that the run sets.
    """
    for name in _OF_THE_RUN:
        if name in arguments:
            raise ValueError(
                f"`{name}` must be left out: a run sets it. "
                f"Received: {name}={arguments[name]!r:.100}"
            )
    if model.steps_per_execution != 1:
        raise ValueError(
            "`steps_per_execution` must be 1: a run continues at any step. "
            f"Received: steps_per_execution={model.steps_per_execution}"
        )
    for callback in callbacks:
        rejected = None
        if getattr(callback, "swap_on_epoch", False):
            rejected = "`SwapEMAWeights` that swaps on epochs"
        elif isinstance(callback, keras.callbacks.BackupAndRestore):
            rejected = "`BackupAndRestore`: a run continues by itself"
        elif getattr(callback, "restore_best_weights", False):
            # Use `monitor=` of the `Checkpoint`.
            rejected = "`EarlyStopping` that restores the best weights"
        if rejected:
            raise ValueError(f"`callbacks` must have no {rejected}.")


def check_pictures(model, stream):
    """Raise if the model's image converter would change raw pictures.

    Args:
        model: the compiled model.
        stream: the stream of the run.

    Raises:
        ValueError: the size or the scale of the pictures differs.
    """
    # A model or stream of the user may lack these attributes.
    preprocessor = getattr(model, "preprocessor", None)
    converter = getattr(preprocessor, "image_converter", None)
    transform = getattr(stream, "transform", None)
    if None not in (converter, transform) and stream.preprocessor is None:
        check_transform(transform, converter)


def saved_position(facts, length):
    """Return the `Position` from which a run continues.

    With epochs of another length (`force`) the epoch begins again, so that no
    sample of it is skipped.

    Args:
        facts: dict, the facts of the checkpoint.
        length: int, steps of an epoch now.
    """
    position = Position(**facts["position"])
    if facts["stream"]["steps_per_epoch"] != length:
        position.step = 0
    return position


def check_monitor(monitor, logs, may_lack_validation):
    """Raise if an epoch does not log `monitor`.

    Args:
        monitor: str, or None.
        logs: dict, the logs of the epoch.
        may_lack_validation: bool, whether some epochs are not evaluated.

    Raises:
        CheckpointError: the logs have no such name.
    """
    evaluated = any(name.startswith("val_") for name in logs)
    waits = may_lack_validation and not evaluated
    if monitor not in (None, *logs) and not waits:
        raise CheckpointError(
            f"`monitor` must be one of {sorted(logs)}; this epoch is saved. "
            f"Received: monitor={monitor!r}"
        )


def versions():
    """Return the versions of the packages that determine the results."""
    found = {name: importlib.metadata.version(name) for name in _PACKAGES}
    backend = keras.config.backend()
    # The version of the module, since the distribution may have another name,
    # such as tensorflow-cpu.
    found[backend] = str(importlib.import_module(backend).__version__)
    return {**found, "backend": backend}


def origin(settings, stream):
    """Return the settings, versions and data of a run, as plain values.

    A run must continue with the same ones.

    Args:
        settings: dict of plain values.
        stream: the training data, with `steps_per_epoch` and usually an
            `identity`.

    Returns:
        dict of dicts, as JSON returns it.
    """
    values = {
        "settings": settings,
        "versions": versions(),
        "stream": {
            "steps_per_epoch": stream.steps_per_epoch,
            **getattr(stream, "identity", {}),
        },
    }
    return json.loads(json.dumps(values))


def differences(then, now):
    """Return a line for each difference between two `origin`s."""
    return [
        f"{part}.{name}: {before!r} then, {value.get(name)!r} now"
        for part, value in now.items()
        for name in sorted({*then[part], *value})
        if (before := then[part].get(name)) != value.get(name)
    ]


def check_origin(directory, then, now, force):
    """Raise if a checkpoint has other settings, versions or data.

    Args:
        directory: path of the run's folder.
        then: dict, the facts of the checkpoint.
        now: dict, as `origin` returns it.
        force: as in `Checkpoint.resume`.

    Raises:
        CheckpointError: it lists the differences.
    """
    lines = differences(then, now)
    allowed = {True: "", False: None, HOSTS: "stream.num_hosts: "}[force]
    if allowed is not None:
        lines = [line for line in lines if not line.startswith(allowed)]
    if lines:
        raise CheckpointError(
            "A run must continue as it began, or with `force=True`. Received: "
            f"directory={str(directory)!r}, where these differ:\n"
            + "\n".join(lines)
        )


def describe_run(model, stream):
    """Describe the model, the optimizer, the loss and the user's functions.

    Args:
        model: a compiled `keras.Model`, before a checkpoint is restored.
        stream: the training data.

    Returns:
        dict from names, such as `"optimizer.learning_rate.peak"`, to numbers,
        strings, None and lists of them. Values of more than 200 characters
        are replaced by their SHA-256. For functions that the `identity` of a
        stream lacks, it has the SHA-256 of their source code.
    """
    layers = [model, *layers_in(model)]
    dropouts = [x for x in layers if isinstance(x, keras.layers.Dropout)]
    preprocessor = getattr(model, "preprocessor", None)
    tokenizer = getattr(preprocessor, "tokenizer", None)
    vocabulary = getattr(tokenizer, "get_vocabulary", None)
    transform = getattr(stream, "transform", None)
    parts = [transform, *getattr(transform, "steps", ())]
    values = {
        "optimizer": _config(model.optimizer),
        "loss": _config(model.loss),
        "dtype": sorted({layer.dtype_policy.name for layer in layers}),
        "dropout": sorted({float(layer.rate) for layer in dropouts}),
        "preprocessor": _config(preprocessor),
        "vocabulary": vocabulary() if vocabulary else None,
    }
    sums = enumerate(map(source_sum, parts))
    sources = {f"transform.source {i}": source for i, source in sums if source}
    return dict(_flat("", values)) | sources


def source_sum(value):
    """Return the SHA-256 of the source code of a function or object's class.

    Returns:
        str in hexadecimal. None if the `repr` describes the value, like that
        of a dataclass, or if there is no source code.
    """
    kind = value if inspect.isroutine(value) else type(value)
    described = kind is not value and kind.__repr__ is not object.__repr__
    if value is None or described:
        return None
    try:
        text = inspect.getsource(kind)
    except (OSError, TypeError):
        return None
    if kind is value:
        variables = inspect.getclosurevars(value).nonlocals
    else:
        variables = getattr(value, "__dict__", {})
    return _sum(text + _plain_text(variables))


def _config(value):
    """Return the Keras configuration of an object, or else its `repr`."""
    try:
        return keras.saving.serialize_keras_object(value)
    except (TypeError, ValueError, NotImplementedError, AttributeError):
        return written_without_addresses(value)


def _flat(name, value):
    """Yield the leaves of a nested configuration as pairs of path and value."""
    if isinstance(value, dict) and "class_name" in value:
        yield name, value["class_name"]
        value = value.get("config")
        # The config of a function is its name.
        if not isinstance(value, dict):
            yield f"{name}.config", _short(value)
            return
    if isinstance(value, dict):
        for key, part in value.items():
            if key not in _IGNORED:
                yield from _flat(f"{name}.{key}" if name else str(key), part)
    else:
        yield name, _short(value)


def _short(value):
    text = _plain_text(value)
    return f"sha256 {_sum(text)}" if len(text) > _LONGEST else json.loads(text)


def _plain_text(value):
    return json.dumps(value, default=written_without_addresses, sort_keys=True)


def _sum(text):
    return hashlib.sha256(text.encode()).hexdigest()


def check(strategy, facts):
    """Raise unless all processes have the same facts. Every one must call it.

    Args:
        strategy: a `Strategy`.
        facts: dict of plain values of this process.

    Raises:
        CheckpointError: in every process; it lists the facts that differ.
    """
    differing = of_processes(strategy, facts)
    if differing:
        raise CheckpointError(
            "All processes of a run must have the same command, data and "
            f"directory of checkpoints. Received:\n{differing}"
        )


def newest(strategy, place, started):
    """Read the newest checkpoint of a run, the same one in every process.

    Args:
        strategy: a `Strategy`; every process must call this.
        place: a `RunFolder` or `RunStore`.
        started: dict of plain values, the settings of this process.

    Returns:
        `(arrays, facts)` for this process, or None if there is no checkpoint.

    Raises:
        CheckpointError: no checkpoint can be read, or the processes differ.
        ProcessError: another process cannot read the checkpoint.
    """
    # Check before reading, since on JAX all processes read together.
    newest = strategy.together(place.names)[-1:]
    check(strategy, started | {"checkpoint": newest})
    try:
        found = strategy.together(place.newest)
    finally:
        place.forget_copies()
    arrays, facts = found or ({}, {})
    check(strategy, {"step": facts.get("step"), "sums": facts.get("sha256")})
    return found and (process_seeds.for_process(strategy, arrays), facts)


def check_model(strategy, model, position):
    """Raise unless all processes have the same weights and position.

    Weights must be whole in all of them, as in `strategy.gathered`.

    Args:
        strategy: a `Strategy`; every process must call this.
        model: a compiled model.
        position: a `Position`.

    Raises:
        CheckpointError: as in `check`.
    """
    if strategy.processes == 1:
        return
    variables = state.variables(model)
    own = strategy.own_draws(variables)
    total = 0
    for name, variable in variables.items():
        if name not in own:
            array = keras.ops.convert_to_numpy(variable)
            content = np.ascontiguousarray(array).reshape(-1).view("uint8")
            total = zlib.crc32(content, total)
    iterations = keras.ops.convert_to_numpy(model.optimizer.iterations)
    facts = {"iterations": int(iterations), "weights": f"{total:08x}"}
    check(strategy, dataclasses.asdict(position) | facts)
