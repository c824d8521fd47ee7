"""Saves and restores the state of Keras' callbacks in a continued run."""

import keras

from keras_bridgetower.checks import is_integer

# Attributes that hold the state of a callback, by class. Keras resets them at
# the start of each `fit`.
_KEPT = {
    keras.callbacks.EarlyStopping: (
        *("wait", "stopped_epoch", "best", "best_epoch"),
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


class AfterOthers(keras.callbacks.Callback):
    """The last callback of a run, called after all others.

    It restores the state of the others when training begins, and lets the
    `Checkpoint` save when an epoch has ended.

    Args:
        run: the `Checkpoint`.
        callbacks: list of the user's callbacks.
        states: dict, from `states`, which they continue from.
    """

    def __init__(self, run, callbacks, states):
        super().__init__()
        self._run = run
        self._callbacks = callbacks
        self._states = states

    def on_train_begin(self, logs=None):
        self._rate = _rate_of(self.model.optimizer)
        for name, kept in _named(self._callbacks):
            for key, value in self._states.get(name, {}).items():
                setattr(kept, key, value)

    def on_epoch_begin(self, epoch, logs=None):
        if self._run.position.step and self._rate is not None:
            # In the middle of an epoch: a callback that sets the learning
            # rate at its start did so before the checkpoint. Undo what it
            # has set now.
            self.model.optimizer.learning_rate = self._rate

    def on_epoch_end(self, epoch, logs=None):
        self._states = states(self._callbacks)
        self._run.end_epoch(epoch, logs)


def states(callbacks):
    """The state of Keras' callbacks, as plain values.

    Args:
        callbacks: list of callbacks.

    Returns:
        dict from the name of each callback with a state to a dict of values.
    """
    return {
        name: {key: _plain(getattr(c, key, None)) for key in _keys(c)}
        for name, c in _named(callbacks)
    }


def have_stopped(callbacks, saved):
    """Whether an `EarlyStopping` has ended the run already.

    Args:
        callbacks: list of callbacks.
        saved: dict, from `states`.

    Returns:
        bool. False if its `patience` was increased since.
    """
    return any(
        saved.get(name, {}).get("stopped_epoch")
        and saved[name]["wait"] >= callback.patience
        for name, callback in _named(callbacks)
        if isinstance(callback, keras.callbacks.EarlyStopping)
    )


def check(callbacks):
    """Refuse callbacks that set weights which are in no checkpoint.

    Args:
        callbacks: list of callbacks.

    Raises:
        ValueError: `BackupAndRestore`, or an `EarlyStopping` with
            `restore_best_weights`.
    """
    for callback in callbacks:
        if isinstance(callback, keras.callbacks.BackupAndRestore):
            raise ValueError(
                "`callbacks` must have no `BackupAndRestore`: it would put "
                "weights of its own in the place of the checkpoint's, which "
                "continues the run by itself. Leave it out. Received: "
                f"{type(callback).__name__}"
            )
        if getattr(callback, "restore_best_weights", False):
            raise ValueError(
                "`callbacks` must have no `EarlyStopping` that restores the "
                "best weights: they are in no checkpoint. Leave "
                "`restore_best_weights` out; with `monitor=` the `Checkpoint` "
                "keeps the best one. Received: restore_best_weights=True"
            )


def _rate_of(optimizer):
    """The learning rate as a number, or None if it is a schedule."""
    rate = optimizer.get_config().get("learning_rate")
    return rate if isinstance(rate, float) else None


def _named(callbacks):
    """Callbacks with a state, each with its class and number as a name."""
    counts = {}
    for callback in callbacks:
        if _keys(callback):
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, -1) + 1
            yield f"{kind} {counts[kind]}", callback


def _keys(callback):
    """The names of the attributes that hold a callback's state."""
    for kind, keys in _KEPT.items():
        if isinstance(callback, kind):
            return keys
    return ()


def _plain(value):
    if value is None:
        return None
    return int(value) if is_integer(value) else float(value)
