"""Where Keras' own classes are touched below their public surface.

All of it stands here, but for the weights that `memory` fills once. Each
function checks that Keras is of a version whose source was read, and on
another one raises or takes a slower way.
"""

import contextlib

import keras

FROM, BEFORE = (3, 15, 1), (3, 16, 0)


def is_known():
    """Whether Keras is of a version that these patches were made for."""
    numbers = keras.__version__.split(".")[:3]
    version = tuple(int(n) if n.isdigit() else 0 for n in numbers)
    return FROM <= version < BEFORE


def check_version():
    """Raise unless Keras is of a version that these patches were made for."""
    if not is_known():
        allowed = (".".join(map(str, v)) for v in (FROM, BEFORE))
        raise RuntimeError(
            "Training on several devices replaces parts of Keras that may "
            "differ in each version. Install keras>={},<{}, or train on one "
            "device. Received: keras=={}".format(*allowed, keras.__version__)
        )


def seed_generators(layer):
    """All seed generators of a layer and the layers in it."""
    check_version()
    return [
        g for part in layer._flatten_layers() for g in part._seed_generators
    ]


def training_of(layer):
    """Inside of a layer's call: whether the model is being trained."""
    check_version()
    return layer._get_call_context().get_value("training")


def optimizer_value(model, variable):
    """What a variable of a model's optimizer holds between two steps.

    On JAX it is empty then. The public way to fill it sets every variable,
    too slow for each step; of an unknown Keras it is taken all the same.

    Args:
        model: the model, while it is trained or not.
        variable: one of `model.optimizer.variables`.

    Returns:
        NumPy array.
    """
    if keras.config.backend() == "jax":
        state = getattr(model, "_jax_state", None) if is_known() else None
        if state and not model._jax_state_synced:
            pairs = zip(
                model.optimizer.variables,
                state["optimizer_variables"],
                strict=True,
            )
            variable = next(x for v, x in pairs if v is variable)
        else:
            model.jax_state_sync()
    return keras.ops.convert_to_numpy(variable)


def without_value(variables):
    """Paths of variables whose values were taken out, as JAX's trainer does.

    Read, they would show their initial values. Of an unknown Keras none are
    found.
    """
    if not is_known():
        return []
    return [v.path for v in variables if v._value is None]


@contextlib.contextmanager
def held(variables, values):
    """A context in which variables have other values, as they are.

    An assignment would spread them over devices again.

    Args:
        variables: list of variables.
        values: list of arrays.
    """
    check_version()
    before = [v._value for v in variables]
    for variable, value in zip(variables, values, strict=True):
        variable._value = value
    try:
        yield
    finally:
        for variable, value in zip(variables, before, strict=True):
            variable._value = value


def lay_out_each_batch():
    """JAX: ask the distribution for the layout of every batch.

    Keras asks at the first one, and a last batch of another size then fails.
    """
    check_version()
    from keras.src.backend.jax import trainer

    def batches(self, distribution):
        for data in self.data_adapter.get_jax_iterator():
            yield trainer._distribute_data(data)

    trainer.JAXEpochIterator._get_distributed_iterator = batches


def gradients_are_summed(optimizer):
    """TensorFlow: this optimizer gets gradients that are summed already."""
    check_version()
    for one in (optimizer, getattr(optimizer, "inner_optimizer", optimizer)):
        one._all_reduce_sum_gradients = lambda pairs: pairs


def distribute_on_tensorflow(split):
    """TensorFlow: batches divided by us, and several processes cured.

    Keras lets `tf.distribute` divide batches, which leaves a replica without
    rows at an uneven end; builds metrics on the mean over a nested batch, and
    reduces scalar logs along an axis, which fail with several processes.

    Args:
        split: function of a strategy and a dataset of global batches, which
            returns the distributed dataset.
    """
    check_version()
    import tensorflow as tf
    from keras.src.backend.tensorflow import trainer
    from keras.src.trainers.epoch_iterator import EpochIterator

    reduce_per_replica = _own(trainer.reduce_per_replica)

    def start(self, distribute_strategy=None, *args, **kwargs):
        EpochIterator.__init__(self, *args, **kwargs)
        self._distribute_strategy = distribute_strategy
        dataset = self.data_adapter.get_tf_dataset()
        self._distributed_dataset = split(distribute_strategy, dataset)

    def build(self, iterator=None, data_batch=None):
        strategy = self._distribute_strategy
        if strategy is None:
            return
        if iterator is not None:
            _, _, batches = next(iter(iterator))
            data_batch = next(batches)
        with strategy.scope():
            self._symbolic_build(data_batch=first(strategy, data_batch))

    def reduce(values, strategy, reduction):
        # Logs of a step are of one replica; those of an epoch are read anew.
        workers = tf.distribute.MultiWorkerMirroredStrategy
        if isinstance(strategy, workers) and reduction == "auto":
            return first(strategy, values)
        return reduce_per_replica(values, strategy, reduction)

    def first(strategy, values):
        return keras.tree.map_structure(
            lambda x: strategy.experimental_local_results(x)[0], values
        )

    trainer.TFEpochIterator.__init__ = start
    trainer.TensorFlowTrainer._maybe_symbolic_build = build
    reduce.own = reduce_per_replica
    trainer.reduce_per_replica = reduce


def _own(function):
    """Keras' own function, where an earlier call has replaced it."""
    return getattr(function, "own", function)
