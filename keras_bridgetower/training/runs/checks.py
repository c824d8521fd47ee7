"""Checks before a run starts or continues: settings, data, callbacks."""

import dataclasses
import warnings

from keras_bridgetower.checks import is_integer
from keras_bridgetower.preprocessing.geometry import check_transform
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.folders import CheckpointError

# The value of `force` that allows another number of processes, and no more.
HOSTS = "hosts"


@dataclasses.dataclass
class Position:
    """The position of a run: `step` batches of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0


def check_force(force):
    """Raise unless `force` is one of its three values."""
    if force not in (False, True, HOSTS):
        raise ValueError(
            f"`force` must be False, True or {HOSTS!r}. "
            f"Received: force={force!r}"
        )


def check_fit(model, callbacks, given):
    """Refuse options of Keras with which checkpoints would be wrong.

    Args:
        model: the compiled model.
        callbacks: list of the user's callbacks.
        given: dict of the user's other arguments for `keras.Model.fit`.

    Raises:
        ValueError: `steps_per_execution` above 1, a callback that swaps the
            weights for their averages, or arguments that the run sets.
    """
    own = sorted(_OF_THE_RUN & set(given))
    if own:
        raise ValueError(
            f"`{own[0]}` must be left out: a run reads its stream to the end "
            "of `steps`, from where it stands. "
            f"Received: {own[0]}={given[own[0]]!r:.100}"
        )
    if model.steps_per_execution != 1:
        raise ValueError(
            "`steps_per_execution` must be 1: a run is saved, and goes on, at "
            "any step. Leave it out of `compile`. Received: "
            f"steps_per_execution={model.steps_per_execution}"
        )
    if any(getattr(c, "swap_on_epoch", False) for c in callbacks):
        raise ValueError(
            "`callbacks` must have no `SwapEMAWeights` that swaps on epochs: "
            "it gives up the weights themselves at the end of each `fit` of "
            "Keras, of which a continued run has two. Leave `swap_on_epoch` "
            "out; validation sees the averages all the same. Received: "
            "swap_on_epoch=True"
        )


# Arguments of `keras.Model.fit`.
_OF_THE_RUN = {"x", "y", "epochs", "initial_epoch", "steps_per_epoch"}


def check_pictures(model, stream):
    """Refuse raw pictures that the model's image converter would change.

    Args:
        model: the compiled model.
        stream: the stream of the run.

    Raises:
        ValueError: as in `geometry.check_transform`.
    """
    # A model or stream of the user may lack these attributes.
    preprocessor = getattr(model, "preprocessor", None)
    converter = getattr(preprocessor, "image_converter", None)
    transform = getattr(stream, "transform", None)
    if None not in (converter, transform) and stream.preprocessor is None:
        check_transform(transform, converter)


def check_origin(directory, then, now, force):
    """Refuse a checkpoint of other settings, versions or data.

    Args:
        directory: path of the run's folder.
        then: dict, the facts of the checkpoint.
        now: dict, what `state.origin` returns.
        force: see `Checkpoint.resume`.

    Raises:
        CheckpointError: it lists the differences.
    """
    lacking = [name for part in now if part not in then for name in now[part]]
    if lacking:
        warnings.warn(
            "The checkpoint is of an older version, which did not save all "
            "that decides a run. These could not be compared with what it "
            f"began with: {', '.join(sorted(lacking))}.",
            stacklevel=4,
        )
    lines = state.differences(then, now)
    allowed = {True: "", False: None, HOSTS: "stream.num_hosts: "}[force]
    if allowed is not None:
        lines = [line for line in lines if not line.startswith(allowed)]
    if lines:
        raise CheckpointError(
            "A run must go on with the settings, versions and data that it "
            f"began with; pass `force={HOSTS!r}` to allow another number of "
            "processes alone, `force=True` to allow every difference. "
            f"Received: directory={str(directory)!r}, where these "
            "differ:\n" + "\n".join(lines)
        )


def position_of(facts, length):
    """The position from which a run continues.

    If epochs have another length now, the position is scaled.

    Args:
        facts: dict, the facts of the checkpoint.
        length: int, steps of an epoch now.

    Returns:
        `Position`.

    Raises:
        CheckpointError: the checkpoint has no valid position.
    """
    position = facts.get("position", {})
    if set(position) != {"epoch", "step"}:
        raise CheckpointError(
            "A checkpoint must say where its run stands, in steps of an "
            f"epoch. Received: position={position!r:.100}"
        )
    before = facts.get("stream", {}).get("steps_per_epoch", length)
    if not is_integer(before) or before <= position["step"]:
        raise CheckpointError(
            "The steps of an epoch must be more than those that a run has "
            f"done of it. Received: steps_per_epoch={before!r:.100}, "
            f"position={position}"
        )
    if before == length or not position["step"]:
        return Position(**position)
    # Reached with `force` only. Rounded down, so that no sample of the rest
    # of the epoch is skipped.
    step = min(position["step"] * length // before, length - 1)
    warnings.warn(
        f"An epoch had {before} steps and has {length} now. The run stood at "
        f"step {position['step']} of epoch {position['epoch']} and goes on at "
        f"step {step}: the samples of this epoch differ from those before.",
        stacklevel=5,
    )
    return Position(position["epoch"], step)


def check_monitor(monitor, logs, may_lack_validation):
    """Refuse a `monitor` that an epoch does not log.

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
            "`monitor` must be among what an epoch logs. This epoch is saved, "
            f"and the run goes on with one of {sorted(logs)}. "
            f"Received: monitor={monitor!r}"
        )
