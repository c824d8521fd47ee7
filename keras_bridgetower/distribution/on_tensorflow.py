"""Strategies for TensorFlow by `tf.distribute`: GPUs and processes."""

import contextlib
import functools
import json
import os

import tensorflow as tf

from keras_bridgetower.backend.keras_private import trainers
from keras_bridgetower.backend.keras_private.updates import learning
from keras_bridgetower.distribution import divide_batches
from keras_bridgetower.distribution import process_seeds
from keras_bridgetower.distribution.strategy import Several
from keras_bridgetower.distribution.strategy import check_batch_norms
from keras_bridgetower.distribution.strategy import first_devices


class TensorFlowReplicas(Several):
    """Abstract: base of the strategies for TensorFlow.

    Gradients are made dense and summed before they are clipped. XLA is off,
    because it cannot compile collectives on every device.

    Args:
        engine: a `tf.distribute.Strategy`.
    """

    def __init__(self, engine):
        super().__init__()
        self.engine = engine
        self.count = engine.num_replicas_in_sync
        trainers.check_version()

    @contextlib.contextmanager
    def scope(self):
        with super().scope(), self.engine.scope():
            yield

    def divided(self, source, training):
        # A replica without rows in the last batch would fail.
        whole = not training and not divide_batches.is_ready(source)
        if whole and self.count > 1 and divide_batches.is_dataset(source):
            return self.dataset(source, training)
        return super().divided(source, training)

    def run(self, method, model, x, *args, **kwargs):
        # `fit` keeps the divided validation data for later epochs.
        begun = kwargs.get("_use_cached_eval_dataset")
        if method in ("fit", "evaluate", "predict") and not begun:
            x = self._for_keras(x, kwargs.get("class_weight"))
            held_out = kwargs.get("validation_data")
            if held_out is not None:
                kwargs["validation_data"] = self._for_keras(held_out)
        return super().run(method, model, x, *args, **kwargs)

    def _for_keras(self, source, class_weight=None):
        return trainers.divided(source, class_weight, self.distributed)

    def distributed(self, dataset):
        """Divide the batches of a dataset among the replicas."""
        if isinstance(dataset, tf.distribute.DistributedDataset):
            return dataset
        if self.count == 1:
            return self.engine.experimental_distribute_dataset(dataset)

        def worker_pieces(context):
            count = context.num_replicas_in_sync
            own = count // context.num_input_pipelines
            first = context.input_pipeline_id * own
            if divide_batches.is_divided(dataset):
                first, count = 0, own
            return divide_batches.pieces_in_turn(
                dataset, first, own, count
            ).prefetch(own)

        return self.engine.distribute_datasets_from_function(worker_pieces)

    def check_training(self, dataset):
        share = divide_batches.is_divided(dataset)
        count = self.count // self.processes if share else self.count
        if self.count > 1:
            divide_batches.check_size(dataset, count)

    def holds(self, variable):
        return self.engine.extended.variable_created_in_scope(variable.value)

    def prepare(self, task):
        super().prepare(task)
        check_batch_norms(task, self)
        task.jit_compile = False
        optimizer = task.optimizer
        if optimizer is None:
            return
        if learning(optimizer).gradient_accumulation_steps:
            accumulate(optimizer, task.trainable_variables)
        if not hasattr(optimizer.apply, "accumulates"):
            # `accumulate` reduces gradients, also after a second `compile`.
            _reduce_first(optimizer)
        trainers.gradients_are_summed(optimizer)


def accumulate(optimizer, variables):
    """Let an optimizer sum gradients of several batches before an update.

    Keras updates under a condition inside each replica, which fails under
    `tf.distribute` (https://github.com/keras-team/keras/issues/20582). Here
    the condition is outside of the replicas. The optimizer's iterations count
    updates, as its schedules expect.

    Args:
        optimizer: a Keras optimizer that is not built yet and has
            `gradient_accumulation_steps`, or a `LossScaleOptimizer` around
            it. The attribute becomes None.
        variables: list of the variables that it trains.
    """
    scaled, optimizer = optimizer, learning(optimizer)
    # Loss scaling has already reduced the gradients to check for infinities.
    reduce = _dense_sum if scaled is optimizer else list
    steps = optimizer.gradient_accumulation_steps
    optimizer.gradient_accumulation_steps = None
    scaled.build(variables)
    batches = optimizer.add_variable((), dtype="int32", name="batches")
    sums = {
        id(v): optimizer.add_variable_from_reference(v, name="sum")
        for v in variables
    }
    apply = type(optimizer).apply

    # `AdamW` of this package replaces gradients that are not finite by zeros.
    checked = getattr(optimizer, "finite_or_zero", None)

    def accumulated(grads, trainable_variables=None):
        pairs = zip(grads, trainable_variables or variables, strict=True)
        pairs = [(g, v) for g, v in pairs if g is not None]
        grads, trained = map(list, zip(*pairs, strict=True))
        grads = reduce(grads)
        if checked:
            grads, trained, _ = checked(grads, trained)
        trained_sums = [sums[id(v)] for v in trained]

        def update():
            means = [s / steps for s in trained_sums]
            apply(optimizer, means, trained)
            for one in trained_sums:
                one.assign(tf.zeros_like(one))

        def merged(engine, grads):
            for one, grad in zip(trained_sums, grads, strict=True):
                engine.extended.update(
                    one.value, lambda v, g: v.assign_add(g), args=(grad,)
                )
            batches.assign_add(1)
            tf.cond(
                batches % steps == 0,
                lambda: engine.extended.call_for_each_replica(update),
                lambda: None,
            )

        context = tf.distribute.get_replica_context()
        context.merge_call(merged, args=(grads,))

    def get_config():
        # A loaded optimizer accumulates as many batches as the saved one.
        config = type(optimizer).get_config(optimizer)
        return {**config, "gradient_accumulation_steps": steps}

    accumulated.accumulates = steps
    optimizer.apply = accumulated
    optimizer.get_config = get_config


class Mirrored(TensorFlowReplicas):
    """One replica on each GPU of this machine, or on each logical CPU."""

    def __init__(self, devices=None):
        chosen = first_devices(devices, usable_devices())
        super().__init__(_mirrored(tuple(d.name for d in chosen)))


def usable_devices():
    """Return TensorFlow's GPUs, or its CPUs if there is none."""
    gpus = tf.config.list_logical_devices("GPU")
    return gpus or tf.config.list_logical_devices("CPU")


@functools.cache
def _mirrored(devices):
    # One strategy for the same devices: a second one would number its messages
    # alike, and receive those of the first.
    return tf.distribute.MirroredStrategy(devices)


class MultiWorkerMirrored(TensorFlowReplicas):
    """Several processes, listed in the environment variable `TF_CONFIG`.

    Create it in each process before TensorFlow runs anything else.
    """

    own_draws = staticmethod(process_seeds.select)

    def __init__(self, devices=None):
        cluster = json.loads(os.environ.get("TF_CONFIG", "{}"))
        if "cluster" not in cluster:
            raise ValueError(
                "'multi_worker' needs the environment variable TF_CONFIG, such "
                'as {"cluster": {"worker": ["host1:2222", "host2:2222"]}, '
                '"task": {"type": "worker", "index": 0}}. '
                f"Received: TF_CONFIG={os.environ.get('TF_CONFIG')}"
            )
        super().__init__(tf.distribute.MultiWorkerMirroredStrategy())
        self.processes = len(cluster["cluster"]["worker"])
        self.index = cluster["task"]["index"]
        self.check_devices(devices)

    def prepare(self, task):
        super().prepare(task)
        process_seeds.seed_apart(task, self.index)

    def run(self, method, model, x, *args, **kwargs):
        trainers.make_worker_functions(model)
        return super().run(method, model, x, *args, **kwargs)

    def all_gather(self, array):
        def gather():
            context = tf.distribute.get_replica_context()
            return context.all_gather(tf.constant(array)[None], axis=0)

        (gathered, *_) = self.engine.experimental_local_results(
            self.engine.run(gather)
        )
        # All replicas of a process sent the same array.
        return gathered.numpy()[:: self.count // self.processes]


def _dense_sum(gradients):
    context = tf.distribute.get_replica_context()
    dense = [tf.convert_to_tensor(g) for g in gradients]
    return context.all_reduce(tf.distribute.ReduceOp.SUM, dense)


def _reduce_first(optimizer):
    """Let an optimizer first sum gradients over replicas."""
    # The method of the class, so that gradients are reduced only once after a
    # second `compile`.
    apply = type(optimizer).apply

    def reduced(grads, trainable_variables=None):
        grads = list(grads)
        reduced_grads = iter(_dense_sum([g for g in grads if g is not None]))
        grads = [None if g is None else next(reduced_grads) for g in grads]
        return apply(optimizer, grads, trainable_variables)

    optimizer.apply = reduced
