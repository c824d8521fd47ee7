"""Saves and restores the state of other callbacks in a continued run."""

import keras

from keras_bridgetower.checks import is_integer

# Attributes of the state of callbacks, by class. Keras resets them at the start
# of each `fit`.
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
    `Checkpoint` save after an epoch.

    Args:
        run: the `Checkpoint`.
        callbacks: list of the user's callbacks.
        states: dict from `states`, the state to restore.
    """

    def __init__(self, run, callbacks, states):
        super().__init__()
        self._run = run
        self._callbacks = callbacks
        self._states = states

    def on_train_begin(self, logs=None):
        self._rate = _constant_rate(self.model.optimizer)
        for name, kept in _named(self._callbacks):
            for key, value in self._states.get(name, {}).items():
                setattr(kept, key, value)

    def on_epoch_begin(self, epoch, logs=None):
        if self._run.position.step and self._rate is not None:
            # In the middle of an epoch. A callback that sets the learning rate
            # at the start of an epoch did so before the checkpoint: undo its
            # change.
            self.model.optimizer.learning_rate = self._rate

    def on_epoch_end(self, epoch, logs=None):
        self._states = states(self._callbacks)
        self._run.end_epoch(epoch, logs)


def states(callbacks):
    """Return the state of Keras' callbacks, as plain values.

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
    """Return True if an `EarlyStopping` has ended the run already.

    False if its `patience` was increased since.

    Args:
        callbacks: list of callbacks.
        saved: dict from `states`.
    """
    return any(
        saved.get(name, {}).get("stopped_epoch")
        and saved[name]["wait"] >= callback.patience
        for name, callback in _named(callbacks)
        if isinstance(callback, keras.callbacks.EarlyStopping)
    )


def _constant_rate(optimizer):
    """Return the learning rate as a number, or None if it is a schedule."""
    rate = optimizer.get_config().get("learning_rate")
    return rate if isinstance(rate, float) else None


def _named(callbacks):
    """Yield each callback with a state, after its class and number as name."""
    counts = {}
    for callback in callbacks:
        if _keys(callback):
            kind = type(callback).__name__
            counts[kind] = counts.get(kind, -1) + 1
            yield f"{kind} {counts[kind]}", callback


def _keys(callback):
    """Return the names of the attributes of a callback's state."""
    for kind, keys in _KEPT.items():
        if isinstance(callback, kind):
            return keys
    return ()


def _plain(value):
    if value is None:
        return None
    return int(value) if is_integer(value) else float(value)
