"""A run that survives: checkpoints, exact continuation, no NaN."""

import contextlib
import dataclasses
import signal
import warnings

import keras

from keras_bridgetower.training import averages
from keras_bridgetower.training import checkpoints
from keras_bridgetower.training import run_checks
from keras_bridgetower.training import state
from keras_bridgetower.training.checkpoints import CheckpointError
from keras_bridgetower.training.failures import Watch
from keras_bridgetower.training.strategy import Strategy
from keras_bridgetower.validation import check_choice
from keras_bridgetower.validation import check_count

# The exit code of a process that SIGTERM ended.
STOPPED = 128 + signal.SIGTERM


@dataclasses.dataclass
class Position:
    """Where a run stands: `step` batches of `epoch` are done."""

    epoch: int = 0
    step: int = 0


class Checkpoint(keras.callbacks.Callback):
    """Saves a run, and continues it as if nothing had happened.

    A checkpoint holds every variable of model, optimizer and metrics, the
    seeds of every layer and the position in the data. What the continued run
    gives equals the uninterrupted one bit for bit. A SIGTERM finishes the
    running step, saves, and ends the process with 143. With `use_ema`, the
    averages take the weights' place when `fit` is through.

    Args:
        directory: path of the run's folder, made if it is not there.
        stream: a `data.pipeline.Stream`, the training data.
        every: int, updates from one checkpoint to the next.
        keep: int, how many of the newest stay.
        monitor: str, name in the logs of an epoch, whose best checkpoint
            stays too, such as `"val_score"`; or None.
        mode: `"max"` or `"min"`: which value of it is best.
        settings: dict of plain values, such as a recipe's. Another run's
            checkpoints are refused.
        on_nonfinite: `"stop"`: a loss or gradient that is not finite ends
            the run; `"skip"`: it is reported and the run goes on. In either
            case our `AdamW` has not applied the step. Gradients that
            overflow by loss scaling alone are no failure.
        strategy: what `kbt.distribute` returned, where there are several
            devices: it divides the data, and one process alone saves.

    Raises:
        CheckpointError: where a checkpoint cannot be written or continued,
            the loss or a gradient is not finite, or an epoch does not log
            `monitor`.

    Example:

    ```python
    checkpoint = Checkpoint("run", stream, every=1000)
    checkpoint.fit(task, steps=10_000)  # Begins, or goes on.
    ```
    """

    def __init__(
        self,
        directory,
        stream,
        every=1000,
        keep=3,
        monitor=None,
        mode="max",
        settings=None,
        on_nonfinite="stop",
        strategy=None,
    ):
        super().__init__()
        check_choice("mode", mode, tuple(_BEST))
        check_choice("on_nonfinite", on_nonfinite, tuple(_NONFINITE))
        check_count("every", every)
        check_count("keep", keep)
        self.directory = directory
        self.stream = stream
        self.every = every
        self.keep = keep
        self.monitor = monitor
        self.better = _BEST[mode]
        self.settings = settings or {}
        self.on_nonfinite = on_nonfinite
        self.strategy = strategy or Strategy()
        self.position = Position()
        self._restored = {}
        self._loss_is_finite = True
        self._last = None
        self._asked_to_stop = False

    def fit(self, model, steps, callbacks=(), force=False, **kwargs):
        """Train until the end, from where the run stands.

        Args:
            model: the compiled model.
            steps: int, updates of the whole run, which may end within an
                epoch; `epochs * stream.steps_per_epoch` for whole ones.
            callbacks: list of further callbacks.
            force: bool, see `resume`.
            **kwargs: as `keras.Model.fit`, such as `validation_data`.

        Returns:
            `keras.callbacks.History` of what was still to be done.

        Raises:
            ValueError: `steps_per_execution` in `compile`, weights that
                another callback swaps for their averages, or pictures that
                the model's image converter would change.
        """
        run_checks.check_fit(model, callbacks)
        run_checks.check_pictures(model, self.stream)
        position = self.resume(model, force)
        self._watch = Watch(model, self._loss_is_finite)
        self._may_lack_validation = "validation_freq" in kwargs
        length = self.stream.steps_per_epoch
        self._last = steps
        history = keras.callbacks.History()
        history.history, history.epoch = {}, []

        def train(epoch, end, dataset, **more):
            part = model.fit(
                self.strategy.dataset(dataset),
                initial_epoch=epoch,
                epochs=end,
                callbacks=[self, *callbacks],
                **more,
                **kwargs,
            )
            history.epoch += part.epoch
            for name, values in part.history.items():
                history.history.setdefault(name, []).extend(values)
            return model.stop_training

        with self._sigterm(), averages.kept_apart(model.optimizer):
            stopped = False
            if position.step and self._steps() < steps:
                # Keras takes all epochs for as long as the first one.
                start, end = dataclasses.astuple(position), position.epoch + 1
                rest = self.stream.dataset(start, epochs=end)
                stopped = train(position.epoch, end, rest)
            if self._steps() < steps and not stopped:
                epoch, end = self.position.epoch, -(-steps // length)
                endless = self.stream.dataset((epoch, 0))
                train(epoch, end, endless, steps_per_epoch=length)
        averages.take(model)
        return history

    def resume(self, model, force=False):
        """Bring a compiled model where the run stands.

        Args:
            model: the compiled model, of the run's architecture.
            force: bool, go on even with other settings, versions or data.

        Returns:
            The `Position`.

        Raises:
            CheckpointError: no checkpoint can be read, or it is of other
                settings, versions, data or another model; it lists what
                differs.
        """
        found = checkpoints.newest(self.directory)
        if found is None:
            return self.position
        arrays, facts = found
        now = state.origin(self.settings, self.stream)
        run_checks.check_origin(self.directory, facts, now, force)
        self.position = Position(**facts["position"])
        self._loss_is_finite = facts.get("loss_is_finite", True)
        # Variables of optimizer and metrics are made here.
        with self.strategy.scope():
            # Metrics are reset by `fit`, and others may draw until it begins.
            self._restored = state.restore(model, arrays)
            if self.position.step:
                state.build_metrics(model, self.stream.batch(self._steps()))
        return self.position

    @contextlib.contextmanager
    def _sigterm(self):
        """A context in which SIGTERM asks the run to stop."""
        self._asked_to_stop = False

        def ask(*_):
            self._asked_to_stop = True

        before = signal.signal(signal.SIGTERM, ask)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def on_epoch_begin(self, epoch, logs=None):
        if self.position.step:
            state.restore_metrics(self.model, self._restored)
            self.strategy.keep_sums(self.model.metrics_variables)
        else:
            self._watch.begin_epoch()

    def on_train_batch_begin(self, batch, logs=None):
        if self._restored:
            state.restore_random(self._restored)
            self._restored = {}

    def on_train_batch_end(self, batch, logs=None):
        position = self.position
        self._check_finite(logs or {}, position)
        position.step += 1
        # What draws until the next step, such as an evaluation or a loader
        # that is made, does so in one run and not in another.
        self._random = state.random()
        if position.step == self.stream.steps_per_epoch:
            # It is saved when it has been evaluated.
            return
        if self._steps() == self._last:
            self.model.stop_training = True
            return
        # A signal may reach the processes at different steps.
        stop = self.strategy.any(self._asked_to_stop)
        if stop or self._steps() % self.every == 0:
            self._save(position, {}, self._random)
        if stop:
            raise SystemExit(STOPPED)

    def on_epoch_end(self, epoch, logs=None):
        if self.position.step == self.stream.steps_per_epoch:
            self.position = Position(epoch + 1, 0)
        self._restored = self._random
        self._save(self.position, logs or {}, self._random)
        run_checks.check_monitor(
            self.monitor, logs or {}, self._may_lack_validation
        )
        if self.strategy.any(self._asked_to_stop):
            raise SystemExit(STOPPED)

    def _steps(self):
        position = self.position
        return position.epoch * self.stream.steps_per_epoch + position.step

    def _save(self, position, logs, random):
        # On JAX, asking for the model brings its variables up to date.
        model = self.model
        strategy = self.strategy
        with strategy.store.values(strategy, model) as value:
            arrays = {**state.of(model, value), **random}
        facts = {
            "position": dataclasses.asdict(position),
            "logs": {k: float(v) for k, v in logs.items()},
            "loss_is_finite": self._watch.is_finite,
            **state.origin(self.settings, self.stream),
        }
        step = self._steps()
        checkpoints.write(self.directory, step, arrays, facts, strategy)
        if strategy.is_chief:
            checkpoints.prune(
                self.directory, self.keep, self.monitor, self.better
            )
        strategy.wait()

    def _check_finite(self, logs, position):
        loss = logs.get("loss", 0.0)
        failure = self._watch.failure(loss)
        if not failure:
            return
        ids = self.stream.ids(self._steps())
        _NONFINITE[self.on_nonfinite](
            "The loss and its gradients must be finite. The checkpoints "
            f"before are as they were. Received: loss={loss} at step "
            f"{position.step} of epoch {position.epoch}, with the samples "
            f"{list(ids)}: {failure}"
        )


def _stop(message):
    raise CheckpointError(message)


_NONFINITE = {"stop": _stop, "skip": warnings.warn}
_BEST = {"max": max, "min": min}
