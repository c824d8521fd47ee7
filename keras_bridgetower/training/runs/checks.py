"""Checks the arguments of a run, and its position."""

import dataclasses
import warnings

import keras

from keras_bridgetower.checks import is_integer
from keras_bridgetower.preprocessing.geometry import check_transform
from keras_bridgetower.training.runs import identity
from keras_bridgetower.training.runs.folders import CheckpointError


@dataclasses.dataclass
class Position:
    """The position of a run: `step` batches of epoch `epoch` are done."""

    epoch: int = 0
    step: int = 0


def check_force(force):
    """Raise if `force` is not one of its three values."""
    if force not in (False, True, identity.HOSTS):
        raise ValueError(
            f"`force` must be False, True or {identity.HOSTS!r}. "
            f"Received: force={force!r}"
        )


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
    own = sorted(_OF_THE_RUN & set(arguments))
    if own:
        raise ValueError(
            f"`{own[0]}` must be left out: a run reads its stream from its "
            "position to the end of `steps`. "
            f"Received: {own[0]}={arguments[own[0]]!r:.100}"
        )
    if model.steps_per_execution != 1:
        raise ValueError(
            "`steps_per_execution` must be 1: a run is saved, and continues, "
            "at any step. Omit it in `compile`. Received: "
            f"steps_per_execution={model.steps_per_execution}"
        )
    for callback in callbacks:
        if getattr(callback, "swap_on_epoch", False):
            raise ValueError(
                "`callbacks` must have no `SwapEMAWeights` that swaps on "
                "epochs: it discards the weights at the end of each `fit` of "
                "Keras, of which a continued run has two. Omit "
                "`swap_on_epoch`; validation uses the averages all the same. "
                "Received: swap_on_epoch=True"
            )
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "`callbacks` must have no `BackupAndRestore`: it would replace "
                "the weights of the checkpoint, which continues the run by "
                f"itself. Omit it. Received: {type(callback).__name__}"
            )
        if getattr(callback, "restore_best_weights", False):
            raise ValueError(
                "`callbacks` must have no `EarlyStopping` that restores the "
                "best weights: they are in no checkpoint. Omit "
                "`restore_best_weights`; with `monitor=` the `Checkpoint` "
                "keeps the best one. Received: restore_best_weights=True"
            )


# Arguments of `keras.Model.fit`.
_OF_THE_RUN = {"x", "y", "epochs", "initial_epoch", "steps_per_epoch"}


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

    It is scaled if epochs have another length now.

    Args:
        facts: dict, the facts of the checkpoint.
        length: int, steps of an epoch now.

    Raises:
        CheckpointError: the checkpoint has no valid position.
    """
    position = facts.get("position", {})
    if set(position) != {"epoch", "step"}:
        raise CheckpointError(
            "A checkpoint must have the position of its run, in steps of an "
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
        f"An epoch had {before} steps and has {length} now. The run was at "
        f"step {position['step']} of epoch {position['epoch']} and continues "
        f"at step {step}: the samples of this epoch differ from those before.",
        stacklevel=5,
    )
    return Position(position["epoch"], step)


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
            "`monitor` must be among what an epoch logs. This epoch is saved, "
            f"and the run continues with one of {sorted(logs)}. "
            f"Received: monitor={monitor!r}"
        )
