"""A run that survives: checkpoints, exact continuation, no NaN."""

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
    """Saves a run, and continues it as if nothing had happened.

    A checkpoint holds every variable of model, optimizer and metrics, the
    seeds of every layer and the position in the data. What the continued run
    gives equals the uninterrupted one bit for bit. A SIGTERM finishes the
    running step, saves, and ends the process with 143. With `use_ema`, the
    averages take the weights' place when `fit` is through.

    With `gradient_accumulation_steps` the stream's batches are parts of an
    update. An epoch may end within one, which the next epoch completes.

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
            devices. Each process reads its share of the stream, one alone
            saves, and all must agree where they stand or all end.

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
        self._beside, self._others = (), {}

    def fit(self, model, steps, callbacks=(), force=False, **kwargs):
        """Train until the end, from where the run stands.

        Outside the main thread, signals cannot be waited for: a SIGTERM then
        ends the process as it does elsewhere.

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
            ValueError: `steps_per_execution` in `compile`, a callback that
                sets the weights (see `other_callbacks`), or pictures that the
                model's image converter would change.
            CheckpointError: another process trains in the folder.
        """
        checks.check_fit(model, callbacks)
        checks.check_pictures(model, self.stream)
        other_callbacks.check(callbacks)
        self._of_update = accumulation(model.optimizer)
        self._last = steps * self._of_update
        with (
            lock.held(self.directory, self.strategy),
            closed_on_error(model),
        ):
            return self._fit(model, list(callbacks), force, kwargs)

    def _fit(self, model, callbacks, force, kwargs):
        position = self.resume(model, force)
        self._beside = callbacks
        last = other_callbacks.AfterOthers(self, callbacks, self._others)
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
            stopped = other_callbacks.have_stopped(callbacks, self._others)
            unfinished = self._batches() < self._last
            if not stopped and position.step and unfinished:
                # Keras takes all epochs for as long as the first one.
                start, end = dataclasses.astuple(position), position.epoch + 1
                stopped = train(start, end)
            if self._batches() < self._last and not stopped:
                start, end = (self.position.epoch, 0), -(-self._last // length)
                train(start, end, steps_per_epoch=length)
        ema.take(model)
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
                settings, versions, data or another model, or other processes
                stand elsewhere; it lists what differs.
            ProcessError: another process cannot go on.
        """
        now = state.origin(self.settings, self.stream)
        # What was restored may have another rate.
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
            self._others = facts.get("callbacks", {})
            self._loss_is_finite = facts.get("loss_is_finite", True)
            # Metrics are reset by `fit`, and others may draw until it begins.
            self._restored = self.strategy.together(
                lambda: state.restore(model, arrays, self.strategy.scope)
            )
        with self.strategy.scope():
            # Keras would read the first batches for it, and then once more.
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
        # What draws until the next step, such as an evaluation or a loader
        # that is made, does so in one run and not in another.
        self._random = state.random()
        if position.step == self.stream.steps_per_epoch:
            # It is saved when it has been evaluated.
            return
        if self._batches() == self._last:
            self.model.stop_training = True
            return
        # A signal may reach the processes at different steps.
        stop = self.strategy.any(self._sigterm.asked)
        every = self.every * self._of_update
        if stop or self._batches() % every == 0:
            self._save(position, {}, self._random)
        if stop:
            raise SystemExit(STOPPED)

    def end_epoch(self, epoch, logs=None):
        """Save an epoch, when other callbacks have ended it."""
        if self.position.step == self.stream.steps_per_epoch:
            self.position = Position(epoch + 1, 0)
        self._restored = self._random
        self._save(self.position, logs or {}, self._random)
        checks.check_monitor(
            self.monitor, logs or {}, self._may_lack_validation
        )
        if self.strategy.any(self._sigterm.asked):
            raise SystemExit(STOPPED)

    def _batches(self):
        position = self.position
        return position.epoch * self.stream.steps_per_epoch + position.step

    def _save(self, position, logs, random):
        # On JAX, asking for the model brings its variables up to date.
        model = self.model
        strategy = self.strategy
        agreement.check_model(strategy, model, position)
        with STORES[strategy.store].values(strategy, model) as value:
            arrays = {**state.of(model, value), **random}
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
