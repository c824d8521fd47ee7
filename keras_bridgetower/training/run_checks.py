"""What a run cannot go on with, said as early as it can be known."""

from keras_bridgetower.preprocessing.placing import check_transform
from keras_bridgetower.training import state
from keras_bridgetower.training.checkpoints import CheckpointError


def check_fit(model, callbacks):
    """Refuse what would save a run where it does not stand.

    Args:
        model: the compiled model.
        callbacks: those besides the run's own.

    Raises:
        ValueError: several steps at once, or weights swapped for their
            averages.
    """
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


def check_pictures(model, stream):
    """Refuse raw pictures that the model's image converter would change.

    Args:
        model: the compiled model.
        stream: the run's.

    Raises:
        ValueError: as `placing.check_transform`.
    """
    # A model or a stream of one's own has neither.
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
        force: bool, go on all the same.

    Raises:
        CheckpointError: it lists what differs.
    """
    lines = state.differences(then, now)
    if lines and not force:
        raise CheckpointError(
            "A run must go on with the settings, versions and data that it "
            "began with; pass `force=True` to go on all the same. "
            f"Received: directory={str(directory)!r}, where these "
            "differ:\n" + "\n".join(lines)
        )


def check_monitor(monitor, logs, may_lack_validation):
    """Refuse a name by which no checkpoint of an epoch is the best.

    Args:
        monitor: str, or None.
        logs: dict, what the epoch logs.
        may_lack_validation: bool, whether not every epoch is evaluated.

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
