"""`Checkpoint`: saves a training run and continues it exactly."""

import dataclasses

import keras

from keras_bridgetower.backend.keras_patches_updates import accumulation
from keras_bridgetower.checks import check_choice
from keras_bridgetower.checks import check_count
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import Strategy
from keras_bridgetower.preprocessing.close_datasets import closed_on_error
from keras_bridgetower.training.runs import agreement
from keras_bridgetower.training.runs import checks
from keras_bridgetower.training.runs import ema
from keras_bridgetower.training.runs import folders
from keras_bridgetower.training.runs import identity
from keras_bridgetower.training.runs import lock
from keras_bridgetower.training.runs import nonfinite
from keras_bridgetower.training.runs import other_callbacks
from keras_bridgetower.training.runs import state
from keras_bridgetower.training.runs.checks import Position
from keras_bridgetower.training.runs.stopping import STOPPED
from keras_bridgetower.training.runs.stopping import Sigterm
from keras_bridgetower.training.runs.stores import STORES


class Checkpoint(keras.callbacks.Callback):
    """Saves a training run and continues it as if it was never interrupted.

    A checkpoint holds all variables of model, optimizer and metrics, the
    seeds of all layers, and the position in the data. The continued run gives
    the same numbers as an uninterrupted one, bit for bit. On a SIGTERM the
    current step is finished, a checkpoint is saved, and the process ends with
    exit code 143. With `use_ema`, the averages replace the weights when `fit`
    ends.

    With `gradient_accumulation_steps`, several batches of the stream make one
    update. An epoch may end in the middle of an update, which then continues
    in the next epoch.

    Args:
        directory: path of the run's folder; it is made if it does not exist.
        stream: a `Stream`, the training data.
        every: int, number of updates between two checkpoints.
        keep: int, how many of the newest checkpoints are kept.
        monitor: str, a name in the logs of an epoch, such as `"val_score"`.
            The checkpoint with its best value is kept, too. Or None.
        mode: `"max"` or `"min"`: which value of `monitor` is best.
        settings: dict of plain values, such as those of a recipe.
            Checkpoints with other settings are refused.
        on_nonfinite: `"stop"`: the run ends if the loss or a gradient is not
            finite; `"skip"`: it warns and continues. In both cases `AdamW` of
            this package has not applied the step. Overflow that only loss
            scaling causes is not a failure.
        strategy: what `kbt.distribute` returned, for several devices. Each
            process reads its share of the stream, and one of them saves. If
            the processes differ in settings, position or weights, all end.

    Raises:
        CheckpointError: a checkpoint cannot be written or continued, the
            loss or a gradient is not finite, or an epoch does not log
            `monitor`.

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
        check_choice("on_nonfinite", on_nonfinite, tuple(nonfinite.REPORTS))
        check_count("every", every)
        check_count("keep", keep)
        self.directory = directory
        self.strategy = strategy or Strategy()
        self.stream = self.strategy.share(stream)
        self._all_hosts = stream
        self.every = every
        self.keep = keep
        self.monitor = monitor
        self.better = _BEST[mode]
        self.settings = settings or {}
        self.on_nonfinite = on_nonfinite
        self.position = Position()
        self._restored = {}
        self._loss_is_finite = True
        self._last = None
        self._sigterm = Sigterm()
        self._beside, self._callback_states = (), {}

    def fit(self, model, steps, callbacks=(), force=False, **kwargs):
        """Train to the end of the run, from its newest checkpoint if any.

        Outside the main thread Python cannot receive signals. A SIGTERM then
        ends the process without saving.

        Args:
            model: the compiled model.
            steps: int, number of updates of the whole run, which may end in
                the middle of an epoch; `epochs * stream.steps_per_epoch` for
                whole epochs.
            callbacks: list of further callbacks.
            force: bool or `"hosts"`, see `resume`.
            **kwargs: as in `keras.Model.fit`, such as `validation_data`; not
                those that `stream` and `steps` set, such as `epochs`.

        Returns:
            `keras.callbacks.History` of the epochs that this call trained.

        Raises:
            ValueError: `steps_per_execution` in `compile`, a callback that
                sets the weights (see `other_callbacks`), pictures that the
                model's image converter would change, labels of other classes
                than the task's, or arguments that the run sets.
            CheckpointError: another process trains in the folder.
        """
        checks.check_fit(model, callbacks, kwargs)
        checks.check_pictures(model, self.stream)
        other_callbacks.check(callbacks)
        self._of_update = accumulation(model.optimizer)
        self._last = steps * self._of_update
        with (
            lock.exclusive(self.directory, self.strategy),
            agreement.other_processes_named(self.strategy),
            closed_on_error(model),
        ):
            return self._fit(model, list(callbacks), force, kwargs)

    def _fit(self, model, callbacks, force, kwargs):
        position = self.resume(model, force)
        self._beside = callbacks
        last = other_callbacks.AfterOthers(
            self, callbacks, self._callback_states
        )
        self._watch = nonfinite.Watch(model, self._loss_is_finite)
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

        with self._sigterm, ema.kept_apart(model.optimizer):
            stopped = other_callbacks.have_stopped(
                callbacks, self._callback_states
            )
            unfinished = self._batches() < self._last
            if not stopped and position.step and unfinished:
                # The rest of an epoch needs a `fit` of its own: Keras assumes
                # that all epochs are as long as the first one.
                start, end = dataclasses.astuple(position), position.epoch + 1
                stopped = train(start, end)
            if self._batches() < self._last and not stopped:
                start, end = (self.position.epoch, 0), -(-self._last // length)
                train(start, end, steps_per_epoch=length)
        ema.take(model)
        return history

    def resume(self, model, force=False):
        """Restore the newest checkpoint of the run into a compiled model.

        Args:
            model: the compiled model, of the run's architecture.
            force: bool or `"hosts"`: True continues with other settings,
                versions or data; `"hosts"` with another number of processes,
                and nothing else. A batch has the same rows on any number.

        Returns:
            The `Position` from which the run continues.

        Raises:
            CheckpointError: no checkpoint can be read; or it has other
                settings, versions or data, or is of another model; or the
                processes differ. The error lists the differences.
            ProcessError: another process cannot continue.
        """
        checks.check_force(force)
        now = state.origin(self.settings, self.stream)
        # Before the restore, which may change the learning rate.
        now["training"] = identity.of_run(model, self.stream)
        self._training = now["training"]
        moment = {"every": self.every, "steps": self._last}
        found = agreement.newest(self.strategy, self.directory, now | moment)
        if found is not None:
            arrays, facts = found
            now["training"] = identity.with_rate_of(
                arrays, facts.get("training", {}), now["training"]
            )
            checks.check_origin(self.directory, facts, now, force)
            length = self.stream.steps_per_epoch
            self.position = checks.position_of(facts, length)
            self._callback_states = facts.get("callbacks", {})
            self._loss_is_finite = facts.get("loss_is_finite", True)
            # Metrics and random states are restored later, because `fit`
            # resets metrics and other code may draw until it begins.
            self._restored = self.strategy.together(
                lambda: state.restore(model, arrays, self.strategy.scope)
            )
        with self.strategy.scope():
            # Otherwise Keras would read the first batch twice.
            state.build_metrics(model, self.strategy.batches(self.stream))
        agreement.check_model(self.strategy, model, self.position)
        return self.position

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
        self._check_finite(logs or {})
        position.step += 1
        # Saved here, because until the next step an evaluation or a new
        # loader may draw random numbers in one run but not in another.
        self._random = state.random()
        if position.step == self.stream.steps_per_epoch:
            # `end_epoch` saves, after the evaluation.
            return
        if self._batches() == self._last:
            self.model.stop_training = True
            return
        # A signal may reach the processes at different steps, so they agree.
        stop = self.strategy.any(self._sigterm.requested)
        every = self.every * self._of_update
        if stop or self._batches() % every == 0:
            self._save(position, {}, self._random)
        if stop:
            raise SystemExit(STOPPED)

    def end_epoch(self, epoch, logs=None):
        """Save a checkpoint after an epoch and all other callbacks."""
        if self.position.step == self.stream.steps_per_epoch:
            self.position = Position(epoch + 1, 0)
        self._restored = self._random
        self._save(self.position, logs or {}, self._random)
        checks.check_monitor(
            self.monitor, logs or {}, self._may_lack_validation
        )
        if self.strategy.any(self._sigterm.requested):
            raise SystemExit(STOPPED)

    def _batches(self):
        position = self.position
        return position.epoch * self.stream.steps_per_epoch + position.step

    def _save(self, position, logs, random):
        # On JAX, reading `self.model` updates the model's variables.
        model = self.model
        strategy = self.strategy
        agreement.check_model(strategy, model, position)
        with STORES[strategy.store].values(strategy, model) as value:
            arrays = {**state.arrays_of(model, value), **random}
            arrays = process_seeds.of_all(strategy, arrays)
        facts = {
            "position": dataclasses.asdict(position),
            "logs": {k: float(v) for k, v in logs.items()},
            "loss_is_finite": self._watch.is_finite,
            **state.origin(self.settings, self.stream),
            "training": self._training,
            "callbacks": other_callbacks.states(self._beside),
        }
        step, rest = divmod(self._batches(), self._of_update)
        folders.write(self.directory, step, arrays, facts, strategy, rest)
        if strategy.is_chief:
            folders.prune(self.directory, self.keep, self.monitor, self.better)
        strategy.wait()

    def _check_finite(self, logs):
        loss = logs.get("loss", 0.0)
        failure = self._watch.failure(loss)
        if failure:
            ids = self._all_hosts.ids(self._batches())
            nonfinite.REPORTS[self.on_nonfinite](
                nonfinite.text(failure, loss, self.position, ids)
            )


_BEST = {"max": max, "min": min}
