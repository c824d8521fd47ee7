"""`Checkpoint`: saves a training run and continues it exactly."""

import concurrent.futures
import contextlib
import dataclasses
import math
import signal
import threading
import warnings

import keras
import numpy as np

from keras_bridgetower.backend.keras_private.training import optimizer_value
from keras_bridgetower.backend.keras_private.updates import accumulation
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.training.runs import checks
from keras_bridgetower.training.runs import places
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.folders import CheckpointError


class Checkpoint(keras.callbacks.Callback):
    """Saves a training run and continues it exactly after an interruption.

    A checkpoint has all variables of model, optimizer and metrics, the seeds
    of all layers, and the position in the data. The continued run gives the
    same numbers as an uninterrupted one, bit for bit. After a SIGTERM the run
    finishes the current step, saves a checkpoint, and ends with exit code 143.
    With `use_ema`, the averages replace the weights when `fit` ends.

    A checkpoint is written beside training, from a copy in the memory of
    process 0. The next save waits for it and raises its error, and so does the
    end of `fit`.

    With `gradient_accumulation_steps`, several batches of the stream make one
    update. An epoch may end in the middle of an update, which continues in the
    next epoch.

    Args:
        directory: path of the run's folder, created if it does not exist, or
            its URL in an object store, such as `"s3://bucket/run"`. A store
            has no lock: one run at a time must use it.
        stream: a `Stream`, the training data.
        every: int, number of updates between two checkpoints.
        keep: int, number of the newest checkpoints to keep.
        monitor: str, a name in the logs of an epoch, such as `"val_score"`.
            The checkpoint with its best value is kept too. Or None.
        mode: `"max"` or `"min"`, the best value of `monitor`.
        settings: dict of plain values, such as those of a recipe.
            Checkpoints with other settings are rejected.
        on_nonfinite: `"stop"` to end the run if the loss or a gradient is not
            finite, `"skip"` to warn and continue. Either way `AdamW` of this
            package does not apply the step. Overflow that only loss scaling
            causes is not a failure.
        strategy: a result of `kbt.distribute`, for several devices. Each
            process reads its share of the stream, and one of them saves. If
            the processes differ in settings, position or weights, all end.

    Raises:
        CheckpointError: a checkpoint cannot be written or continued, the loss
            or a gradient is not finite, or an epoch does not log `monitor`.

    Example:

    ```python
    checkpoint = Checkpoint("run", stream, every=1000)
    checkpoint.fit(task, steps=10_000)  # Starts the run or continues it.
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
        check_choice("on_nonfinite", on_nonfinite, ("stop", "skip"))
        check_count("every", every)
        check_count("keep", keep)
        self.directory = directory
        self._place = places.open_place(directory)
        self.strategy = strategy or Strategy()
        self.stream = self.strategy.share(stream)
        self._all_hosts = stream
        self.every = every
        self.keep = keep
        self.monitor = monitor
        self.better = _BEST[mode]
        self.settings = settings or {}
        self.on_nonfinite = on_nonfinite
        self.position = checks.Position()
        self._restored = {}
        self._loss_is_finite = True
        self._last = None
        self._sigterm = False
        self._beside, self._callback_states = (), {}
        self._writer, self._writing = None, None

    def fit(self, model, steps, callbacks=(), force=False, **kwargs):
        """Train to the end of the run, from its newest checkpoint if any.

        Outside the main thread, where Python receives no signals, a SIGTERM
        ends the process without saving.

        Args:
            model: the compiled model.
            steps: int, number of updates of the whole run, which may end in
                the middle of an epoch; `epochs * stream.steps_per_epoch` for
                whole epochs.
            callbacks: list of further callbacks.
            force: bool or `"hosts"`, as in `resume`.
            **kwargs: as in `keras.Model.fit`, such as `validation_data`,
                except those set by `stream` and `steps`, such as `epochs`.

        Returns:
            `keras.callbacks.History` of the epochs that this call trained.

        Raises:
            ValueError: `steps_per_execution` in `compile`, a callback that
                sets weights, pictures that the model's image converter would
                change, labels of other classes than the task's, or arguments
                that the run sets.
            CheckpointError: another process trains in the folder, or a store
                cannot be written.
        """
        checks.check_fit(model, callbacks, kwargs)
        checks.check_pictures(model, self.stream)
        self._of_update = accumulation(model.optimizer)
        self._last = steps * self._of_update
        with (
            self._place.exclusive(self.strategy),
            # Also after an error, its end waits for what is written.
            concurrent.futures.ThreadPoolExecutor(1) as self._writer,
        ):
            history = self._fit(model, list(callbacks), force, kwargs)
            self._wait_for_writer()
            return history

    def _fit(self, model, callbacks, force, kwargs):
        position = self.resume(model, force)
        self._beside = callbacks
        last = state.AfterOthers(self, callbacks, self._callback_states)
        # Not `self.model`, which on JAX updates the model's variables.
        self._trained, self._skipped = model, _skipped(model)
        self._may_lack_validation = "validation_freq" in kwargs
        length = self.stream.steps_per_epoch
        history = keras.callbacks.History()
        history.history, history.epoch = {}, []

        def train(start, end, **more):
            part = model.fit(
                self.strategy.batches(self.stream, start, epochs=end),
                initial_epoch=start[0],
                epochs=end,
                callbacks=[self, *callbacks, last],
                **more,
                **kwargs,
            )
            history.epoch += part.epoch
            for name, values in part.history.items():
                history.history.setdefault(name, []).extend(values)
            return model.stop_training

        with self._noting_sigterm(), _averages_at_the_end(model):
            stopped = state.have_stopped(callbacks, self._callback_states)
            unfinished = self._batches() < self._last
            if not stopped and position.step and unfinished:
                # The rest of an epoch needs its own `fit`, since Keras assumes
                # that all epochs are as long as the first one.
                start, end = dataclasses.astuple(position), position.epoch + 1
                stopped = train(start, end)
            if self._batches() < self._last and not stopped:
                start, end = (self.position.epoch, 0), -(-self._last // length)
                train(start, end, steps_per_epoch=length)
        return history

    @contextlib.contextmanager
    def _noting_sigterm(self):
        """Note a SIGTERM in the context, without ending the process.

        Python receives signals in the main thread only.
        """
        self._sigterm = False
        if self.strategy.notes_sigterm:
            yield
            return
        if threading.current_thread() is not threading.main_thread():
            warnings.warn(
                "`Checkpoint.fit` runs outside the main thread, where Python "
                "receives no signals: a SIGTERM ends the process without "
                "saving.",
                stacklevel=5,
            )
            yield
            return

        def note(*_):
            self._sigterm = True

        before = signal.signal(signal.SIGTERM, note)
        try:
            yield
        finally:
            signal.signal(signal.SIGTERM, before)

    def resume(self, model, force=False):
        """Restore the newest checkpoint of the run into a compiled model.

        Args:
            model: the compiled model, of the run's architecture.
            force: bool or `"hosts"`. True allows other settings, versions or
                data; `"hosts"` only another number of processes, which does
                not change the rows of a batch.

        Returns:
            The `Position` from which the run continues.

        Raises:
            CheckpointError: no checkpoint can be read; it has other settings,
                versions or data, or is of another model; or the processes
                differ. The error lists the differences.
            ProcessError: another process cannot continue.
        """
        check_choice("force", force, (False, True, checks.HOSTS))
        now = checks.origin(self.settings, self.stream)
        # Described before the restore, which may change the learning rate.
        now["training"] = checks.describe_run(model, self.stream)
        self._training = now["training"]
        moment = {"every": self.every, "steps": self._last}
        found = checks.newest(self.strategy, self._place, now | moment)
        if found is not None:
            arrays, facts = found
            checks.check_origin(self._place, facts, now, force)
            length = self.stream.steps_per_epoch
            self.position = checks.saved_position(facts, length)
            self._callback_states = facts["callbacks"]
            self._loss_is_finite = facts["loss_is_finite"]
            # Metrics and random states are restored later, since `fit` resets
            # metrics, and other code may draw before it begins.
            self._restored = self.strategy.together(
                lambda: state.restore(model, arrays, self.strategy)
            )
        with self.strategy.scope():
            # Otherwise Keras would read the first batch twice.
            state.build_metrics(model, self.strategy.batches(self.stream))
        with self.strategy.gathered(model):
            checks.check_model(self.strategy, model, self.position)
        return self.position

    def on_epoch_begin(self, epoch, logs=None):
        if self.position.step:
            state.restore_metrics(self.model, self._restored)
            self.strategy.keep_sums(self.model.metrics_variables)
        else:
            # Keras resets the mean loss, which is not finite until then.
            self._loss_is_finite = True

    def on_train_batch_begin(self, batch, logs=None):
        if self._restored:
            state.restore_random(self._restored)
            self._restored = {}

    def on_train_batch_end(self, batch, logs=None):
        position = self.position
        self._check_finite(logs or {})
        position.step += 1
        # Read here, since before the next step an evaluation or a new loader
        # may draw random numbers in one run but not in another.
        self._random = state.random()
        if position.step == self.stream.steps_per_epoch:
            # `end_epoch` saves, after the evaluation.
            return
        if self._batches() == self._last:
            self.model.stop_training = True
            return
        within = self._batches() % self._of_update > 0
        if within and not self.strategy.stops_within_updates:
            return
        # A signal may reach the processes at different steps.
        stop = self.strategy.must_stop(self._sigterm)
        every = self.every * self._of_update
        if stop or self._batches() % every == 0:
            self._save(position, {}, self._random)
        if stop:
            self._stop()

    def end_epoch(self, epoch, logs=None):
        """Save a checkpoint after an epoch and all other callbacks."""
        if self.position.step == self.stream.steps_per_epoch:
            self.position = checks.Position(epoch + 1, 0)
        self._restored = self._random
        self._save(self.position, logs or {}, self._random)
        checks.check_monitor(
            self.monitor, logs or {}, self._may_lack_validation
        )
        if self.strategy.must_stop(self._sigterm):
            self._stop()

    def _stop(self):
        self._wait_for_writer()
        raise SystemExit(STOPPED)

    def _wait_for_writer(self):
        """Wait until the last checkpoint is written, or raise its error."""
        writing, self._writing = self._writing, None
        with places.errors(self._place, "A checkpoint could not be written."):
            self.strategy.together(lambda: writing and writing.result())

    def _batches(self):
        position = self.position
        return position.epoch * self.stream.steps_per_epoch + position.step

    def _save(self, position, logs, random):
        # On JAX, reading `self.model` updates the model's variables.
        model = self.model
        strategy = self.strategy
        self._wait_for_writer()
        strategy.share_accumulated(model.optimizer)
        metrics = model.metrics_variables
        with strategy.gathered(model), strategy.summed(metrics):
            checks.check_model(strategy, model, position)
            arrays = {**state.arrays(model, strategy.whole), **random}
            arrays = process_seeds.with_all_processes(strategy, arrays)
        facts = {
            "position": dataclasses.asdict(position),
            "logs": {k: float(v) for k, v in logs.items()},
            "loss_is_finite": self._loss_is_finite,
            **checks.origin(self.settings, self.stream),
            "training": self._training,
            "callbacks": state.callback_states(self._beside),
        }
        step, rest = divmod(self._batches(), self._of_update)
        if strategy.is_chief:
            # Training changes the values from here on.
            arrays = {name: np.array(array) for name, array in arrays.items()}
            written = step, arrays, facts, rest
            self._writing = self._writer.submit(self._write, written)

    def _write(self, written):
        self._place.write(*written)
        self._place.prune(self.keep, self.monitor, self.better)

    def _check_finite(self, logs):
        loss, failure = logs.get("loss", 0.0), ""
        was_finite, before = self._loss_is_finite, self._skipped
        self._loss_is_finite = math.isfinite(loss)
        self._skipped = _skipped(self._trained)
        if self._skipped > before:
            failure = "the gradients are not finite"
        elif was_finite and not self._loss_is_finite:
            failure = "the loss is not finite"
        if not failure:
            return
        ids = self._all_hosts.ids(self._batches())
        position = self.position
        message = (
            f"The loss and its gradients must be finite. Received: loss={loss} "
            f"at step {position.step} of epoch {position.epoch}, with the "
            f"samples {list(ids)}: {failure}"
        )
        if self.on_nonfinite == "stop":
            raise CheckpointError(message)
        warnings.warn(message, stacklevel=2)


_BEST = {"max": max, "min": min}
# The usual exit code after a SIGTERM, 143.
STOPPED = 128 + signal.SIGTERM


@contextlib.contextmanager
def _averages_at_the_end(model):
    """Replace weights by their averages, if any, at the end of the context.

    Keras does so at the end of each `fit`, but a run may continue after it. On
    JAX Keras would also do so after an error, fail, and mask that error.
    """
    optimizer = model.optimizer
    take = optimizer.finalize_variable_values
    optimizer.finalize_variable_values = lambda variables: None
    try:
        yield
    finally:
        optimizer.finalize_variable_values = take
    # Before the first update the averages are zeros.
    if optimizer.built and int(
        keras.ops.convert_to_numpy(optimizer.iterations)
    ):
        take(model.trainable_weights)


def _skipped(model):
    """Return how many updates had gradients that were not finite."""
    optimizer = model.optimizer
    inner = getattr(optimizer, "inner_optimizer", optimizer)
    count = 0
    if hasattr(inner, "skipped"):
        count = int(optimizer_value(model, inner.skipped))
    if hasattr(optimizer, "dynamic_scale"):
        # With loss scaling, scaled gradients sometimes overflow, and the scale
        # is halved. Only if it falls below 1 are the gradients not finite.
        scale = optimizer_value(model, optimizer.dynamic_scale)
        count += max(0, -math.log2(max(float(scale), 2.0**-1000)))
    return count
