"""Saves and restores the state of a run: variables, draws, callbacks."""

import keras
import numpy as np

from keras_bridgetower.backend import backend_ops
from keras_bridgetower.backend import precision
from keras_bridgetower.backend.keras_private.training import build_from_spec
from keras_bridgetower.training.runs.folders import CheckpointError

_METRICS, _RANDOM = "metrics/", "random/"
# Attributes of the state of callbacks, by class. Keras resets them at the start
# of each `fit`.
_KEPT = {
    keras.callbacks.EarlyStopping: (
        *("wait", "stopped_epoch", "best", "best_epoch"),
    ),
    keras.callbacks.ReduceLROnPlateau: ("wait", "cooldown_counter", "best"),
    keras.callbacks.ModelCheckpoint: ("best",),
}


def arrays(model, value):
    """Return all variables of a model, its optimizer and metrics as arrays.

    Unlike Keras' weight files they include the seeds of the layers.

    Args:
        model: a compiled model.
        value: function from a variable to its array.

    Returns:
        dict from name to array.
    """
    named = {
        **variables(model),
        **_by_name(model.optimizer.variables, "optimizer/"),
        **_by_name(model.metrics_variables, _METRICS),
    }
    return {name: value(variable) for name, variable in named.items()}


def variables(model):
    """Return the variables of a model by name, without those of metrics."""
    return _by_name(_variables(model), "model/")


def random():
    """Return the state of the backend's random generators as arrays."""
    return {_RANDOM + k: v for k, v in backend_ops.random_state().items()}


def restore(model, arrays, strategy):
    """Restore the variables of a model and its optimizer.

    Args:
        model: a compiled model of the same architecture.
        arrays: dict from name to NumPy array, from `arrays` and `random`.
        strategy: the run's `Strategy`.

    Returns:
        dict of the arrays to restore when training begins, by
        `restore_metrics` and `restore_random`.

    Raises:
        CheckpointError: the model has other variables; it lists them.
    """
    with strategy.scope():
        precision.build_once(model.optimizer, model.trainable_variables)
        _assign(_variables(model), arrays, "model/")
        slots = _by_name(model.optimizer.variables, "optimizer/")
        arrays = arrays | {
            name: strategy.own_rows(model, variable, arrays[name])
            for name, variable in slots.items()
            if name in arrays
        }
        _assign(model.optimizer.variables, arrays, "optimizer/")
    late = (_METRICS, _RANDOM)
    return {k: v for k, v in arrays.items() if k.startswith(late)}


def restore_metrics(model, arrays):
    """Restore the metrics of a model, whose variables must exist."""
    _assign(model.metrics_variables, arrays, _METRICS)


def restore_random(arrays):
    """Restore the backend's random generators."""
    backend_ops.set_random_state(
        {
            name.removeprefix(_RANDOM): value
            for name, value in arrays.items()
            if name.startswith(_RANDOM)
        }
    )


def build_metrics(model, dataset):
    """Create the variables of losses and metrics, from shapes only.

    Args:
        model: a compiled model.
        dataset: `tf.data.Dataset`, the training data. No batch is read.
    """
    if getattr(model, "preprocessor", None) is not None:
        dataset = dataset.map(model.preprocess_samples)
    build_from_spec(model, dataset.element_spec)


def _variables(model):
    """Return the variables of a model without those of metrics, each once."""
    metrics = {id(v) for v in model.metrics_variables}
    known = {id(v): v for v in model.variables if id(v) not in metrics}
    return list(known.values())


def _by_name(variables, prefix):
    return {f"{prefix}{i}/{v.name}": v for i, v in enumerate(variables)}


def _assign(variables, arrays, prefix):
    """Set each variable to the array of its name, after checking all."""
    named = _by_name(variables, prefix)
    saved = {k: v for k, v in arrays.items() if k.startswith(prefix)}
    shapes = {(name, tuple(v.shape)) for name, v in named.items()}
    differing = shapes ^ {(name, a.shape) for name, a in saved.items()}
    if differing:
        raise CheckpointError(
            "A checkpoint must be of the same model, optimizer and metrics. "
            f"Received: variables that differ: {sorted(differing)[:20]}"
        )
    for name, variable in named.items():
        variable.assign(np.asarray(saved[name]))


class AfterOthers(keras.callbacks.Callback):
    """The last callback of a run, called after all others.

    It restores the state of the others when training begins, and lets the
    `Checkpoint` save after an epoch.

    Args:
        run: the `Checkpoint`.
        callbacks: list of the user's callbacks.
        states: dict from `callback_states`, the state to restore.
    """

    def __init__(self, run, callbacks, states):
        super().__init__()
        self._run = run
        self._callbacks = callbacks
        self._states = states

    def on_train_begin(self, logs=None):
        # A number, unless it is a schedule.
        self._rate = self.model.optimizer.get_config().get("learning_rate")
        for name, kept in _named(self._callbacks):
            for key, value in self._states.get(name, {}).items():
                setattr(kept, key, value)

    def on_epoch_begin(self, epoch, logs=None):
        if self._run.position.step and isinstance(self._rate, float):
            # In the middle of an epoch. A callback that sets the learning rate
            # at the start of an epoch did so before the checkpoint: undo its
            # change.
            self.model.optimizer.learning_rate = self._rate

    def on_epoch_end(self, epoch, logs=None):
        self._states = callback_states(self._callbacks)
        self._run.end_epoch(epoch, logs)


def callback_states(callbacks):
    """Return the state of Keras' callbacks, as plain values.

    Args:
        callbacks: list of callbacks.

    Returns:
        dict from the name of each callback with a state to a dict of values.
    """
    return {
        name: {k: np.asarray(getattr(c, k, None)).item() for k in _keys(c)}
        for name, c in _named(callbacks)
    }


def have_stopped(callbacks, saved):
    """Return True if an `EarlyStopping` has ended the run already.

    False if its `patience` was increased since.

    Args:
        callbacks: list of callbacks.
        saved: dict from `callback_states`.
    """
    return any(
        saved.get(name, {}).get("stopped_epoch")
        and saved[name]["wait"] >= callback.patience
        for name, callback in _named(callbacks)
        if isinstance(callback, keras.callbacks.EarlyStopping)
    )


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
