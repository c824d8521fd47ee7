"""The share of the data that one process reads, marked as already divided.

A dataset that holds the share of one process is marked by TensorFlow's own
option: its `auto_shard_policy` is OFF. The option is kept by `map` and other
transformations. So no dataset is divided twice. Another option marks what a
strategy has returned.
"""

_READY = "keras_bridgetower"


def marked(dataset):
    """The same dataset, marked as the share of one process."""
    import tensorflow as tf

    options = tf.data.Options()
    policies = tf.data.experimental.AutoShardPolicy
    options.experimental_distribute.auto_shard_policy = policies.OFF
    return dataset.with_options(options)


def is_dataset(source):
    """Return True if something is a `tf.data.Dataset`."""
    import tensorflow as tf

    return isinstance(source, tf.data.Dataset)


def is_divided(dataset):
    """Whether a dataset is marked as the share of one process."""
    import tensorflow as tf

    if not is_dataset(dataset):
        return False
    policy = dataset.options().experimental_distribute.auto_shard_policy
    return policy == tf.data.experimental.AutoShardPolicy.OFF


def ready(dataset):
    """Return the same dataset, marked as one that a strategy has returned."""
    import tensorflow as tf

    options = tf.data.Options()
    options.framework_type = [_READY]
    return dataset.with_options(options)


def is_ready(source):
    """Return True if data are divided, or a strategy has returned them."""
    if not is_dataset(source):
        return False
    marks = source.options().framework_type or ()
    return is_divided(source) or _READY in marks


def check_whole(dataset):
    """Raise if a dataset is marked as the share of one process.

    Raises:
        ValueError: it would be divided again, and samples would be lost.
    """
    if is_divided(dataset):
        raise ValueError(
            "`dataset` must hold global batches, but is divided among "
            "processes already: samples would be lost. Pass the `Stream` "
            "itself to `strategy.batches(stream)`, and omit its `num_hosts`. "
            "Received: a dataset whose auto_shard_policy is OFF, as that of "
            "`Stream(num_hosts=...)` and of `strategy.dataset`"
        )


def share(stream, processes, index):
    """The share of one process in a stream of global batches.

    Args:
        stream: a `Stream`, or an object with its methods. Without a method
            `of_host` it is returned as it is.
        processes: int, number of processes.
        index: int, number of this process, from 0.

    Returns:
        A stream.

    Raises:
        ValueError: a stream that is already divided in another way.
    """
    hosts = getattr(stream, "num_hosts", 1), getattr(stream, "host", 0)
    if hosts == (processes, index):
        return stream
    if hosts[0] != 1:
        raise ValueError(
            "`stream` must not be divided in another way than among the "
            f"processes: this one is {index} of {processes}. Leave "
            "`num_hosts` and `host` out; each process gets its share. "
            f"Received: num_hosts={hosts[0]}, host={hosts[1]}"
        )
    of_host = getattr(stream, "of_host", None)
    return stream if of_host is None else of_host(processes, index)
