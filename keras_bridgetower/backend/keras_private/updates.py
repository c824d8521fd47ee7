"""Makes schedules and averages count updates when gradients are accumulated.

With `gradient_accumulation_steps=n`, Keras calls a schedule with the number of
batches and moves the averages of weights after each batch. The schedule then
ends n times too early, and the averages decay n times too fast.

Before the first update the averages are zeros. If `fit` ends before it, because
of too few batches or loss scaling, the weights keep their values.
"""

import contextlib

import keras
from keras import ops

from keras_bridgetower.backend.keras_private import check_version
from keras_bridgetower.backend.keras_private import is_known
from keras_bridgetower.backend.keras_private.variables import has_value


def learning(optimizer):
    """Return the optimizer that updates weights, inside loss scaling."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def accumulation(optimizer):
    """Return the number of batches in an update, from 1.

    Args:
        optimizer: a Keras optimizer, also with loss scaling.
    """
    one = learning(optimizer)
    # Under `tf.distribute` the strategy accumulates instead of Keras.
    ours = getattr(one.apply, "accumulates", None)
    return ours or one.gradient_accumulation_steps or 1


def count_updates(optimizer):
    """Let the schedule and the averages of an optimizer count updates.

    Without accumulation, only the end of `fit` changes. Methods of this object
    are replaced, not those of its class.

    Args:
        optimizer: a Keras optimizer, also with loss scaling.

    Raises:
        RuntimeError: the version of Keras is unknown.
        ValueError: several optimizers, or `ema_overwrite_frequency`, by which
            Keras changes weights in the middle of an update.
    """
    one = learning(optimizer)
    if hasattr(one, "optimizers"):
        raise ValueError(
            "`optimizer` must be a single one: `AdamW` with `rows` has a "
            "learning rate for each group of weights. Received: "
            f"{type(one).__name__}"
        )
    # `AdamW` comes here twice: split weights have their own by then.
    if one.use_ema and "finalize_variable_values" not in vars(one):
        _take_averages_of_updates(one)
    if accumulation(one) > 1:
        _count_updates(one)


def check_trained(task):
    """Raise if other weights are trainable than at the last `compile`.

    TensorFlow would go on training the old ones, and the error of JAX shows
    only numbers of variables. On an unknown Keras nothing is checked.

    Args:
        task: a compiled task.

    Raises:
        ValueError: `trainable` of a layer has changed since the optimizer was
            built.
    """
    # Keras rejects a task that was never compiled.
    optimizer = learning(getattr(task, "optimizer", None))
    if optimizer is None or not optimizer.built or not is_known():
        return
    # With split weights it updates parts of them.
    built = [
        getattr(v, "stands_for", v) for v in optimizer._trainable_variables
    ]
    found = {id(v): v.path for v in built}
    trained = {id(v): v.path for v in task.trainable_variables}
    changed = trained.items() ^ found.items()
    if changed:
        raise ValueError(
            "`compile` must be called again, with a new optimizer, after a "
            "change of the weights to train. Received: another "
            f"{min(path for _, path in changed)!r}"
        )


def accumulated(optimizer):
    """Return the variables in which an optimizer accumulates gradients.

    Args:
        optimizer: a Keras optimizer, also with loss scaling.

    Returns:
        list of `(weight, variable)`; empty without accumulation, and before
        the first batch.
    """
    one = learning(optimizer)
    if accumulation(one) == 1 or not one.built:
        return []
    pairs = zip(
        one._trainable_variables, one._accumulated_gradients, strict=True
    )
    return [(weight, v) for weight, v in pairs if v is not None]


def ends_update(optimizer):
    """Return True if the next batch ends an update, as without accumulation.

    Args:
        optimizer: a Keras optimizer, also with loss scaling.
    """
    one, batches = learning(optimizer), accumulation(optimizer)
    if batches == 1:
        return True
    done = int(ops.convert_to_numpy(one._iterations)) if one.built else 0
    return (done + 1) % batches == 0


@contextlib.contextmanager
def references(optimizer, found):
    """Note which variable each new variable of an optimizer belongs to.

    Args:
        optimizer: a Keras optimizer.
        found: dict to fill, from the id of each new variable to the one that
            it belongs to.
    """
    one = learning(optimizer)
    own = one.add_variable_from_reference

    def add(reference_variable, *args, **kwargs):
        made = own(reference_variable, *args, **kwargs)
        found[id(made)] = reference_variable
        return made

    one.add_variable_from_reference = add
    try:
        yield
    finally:
        del one.add_variable_from_reference


def clip_by_sums(optimizer, sum_squares):
    """Let an optimizer clip by norms of gradients of which it has parts.

    Args:
        optimizer: a Keras optimizer.
        sum_squares: function from a list of gradients to a tensor with the sum
            of the squares of each, over all processes.
    """
    one = learning(optimizer)

    def clip(grads):
        if not (one.clipnorm or one.global_clipnorm):
            return type(one)._clip_gradients(one, grads)
        given = [g for g in grads if g is not None]
        sums = sum_squares(given)
        if one.global_clipnorm:
            most = one.global_clipnorm
            norms = [ops.sqrt(ops.sum(sums))] * len(given)
        else:
            most, norms = one.clipnorm, ops.unstack(ops.sqrt(sums))
        clipped = iter(
            # As in Keras, gradients that are not finite become NaN.
            g * (most / ops.maximum(norm, most) + (norm - norm))
            for g, norm in zip(given, norms, strict=True)
        )
        return [None if g is None else next(clipped) for g in grads]

    one._clip_gradients = clip


def decay_weights_of_parts(optimizer):
    """Let `exclude_from_weight_decay` of weights exclude their parts.

    Args:
        optimizer: a Keras optimizer, which updates variables that have the
            attribute `stands_for`.
    """
    one = learning(optimizer)

    def decays(variable):
        return type(one)._use_weight_decay(one, variable.stands_for)

    one._use_weight_decay = decays


def _count_updates(optimizer):
    # Not from `get_config`, which has no numbers while TensorFlow traces.
    if optimizer.ema_overwrite_frequency:
        raise ValueError(
            "`ema_overwrite_frequency` must be None with "
            "`gradient_accumulation_steps`. Received: "
            f"{optimizer.ema_overwrite_frequency}"
        )
    # A schedule returns a tensor.
    is_constant = isinstance(optimizer.learning_rate, keras.Variable)
    if is_constant and not optimizer.use_ema:
        return
    check_version(
        "A schedule or averages with `gradient_accumulation_steps`",
        "accumulate with a constant rate",
    )
    schedules = keras.optimizers.schedules.LearningRateSchedule
    own_rate = type(optimizer)._get_current_learning_rate
    own_average = type(optimizer)._update_model_variables_moving_average

    def rate():
        if isinstance(optimizer._learning_rate, schedules):
            return optimizer._learning_rate(optimizer.iterations)
        return own_rate(optimizer)

    def average(variables):
        steps = optimizer.gradient_accumulation_steps
        if not steps:
            own_average(optimizer, variables)
            return
        # The current batch is not counted yet.
        is_update = ops.equal((optimizer._iterations + 1) % steps, 0)
        # Before the first update the averages are the weights, not zeros.
        is_update = ops.logical_or(is_update, optimizer.iterations < 1)
        averages = optimizer._model_variables_moving_average
        for variable, mean in zip(variables, averages, strict=True):
            if mean is not None:
                before = ops.convert_to_tensor(mean)
                share = ops.cast(optimizer.iterations > 0, mean.dtype)
                share = share * optimizer.ema_momentum
                moved = share * before + (1 - share) * variable
                mean.assign(ops.where(is_update, moved, before))

    optimizer._get_current_learning_rate = rate
    optimizer._update_model_variables_moving_average = average


def _take_averages_of_updates(optimizer):
    """Let the end of `fit` keep the weights if there was no update yet.

    On JAX a weight would share the array of its average, and a step cannot
    reuse the memory of both. After an error Keras may have put no values back,
    and would hide that error.
    """
    finalize = type(optimizer).finalize_variable_values

    def take(variables):
        if not all(map(has_value, optimizer.variables)):
            return
        if int(ops.convert_to_numpy(optimizer.iterations)):
            finalize(optimizer, variables)
            if keras.config.backend() == "jax":
                for variable in variables:
                    variable.assign(ops.copy(variable.value))

    optimizer.finalize_variable_values = take
