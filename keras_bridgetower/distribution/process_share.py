"""Which rows a process reads, and that nothing is divided twice.

A dataset of a process's own rows is marked as TensorFlow marks it: its policy
of dividing is off. The mark stays through whatever is mapped over it.
"""


def marked(dataset):
    """The same dataset, as the rows of one process."""
    import tensorflow as tf

    options = tf.data.Options()
    policies = tf.data.experimental.AutoShardPolicy
    options.experimental_distribute.auto_shard_policy = policies.OFF
    return dataset.with_options(options)


def is_divided(dataset):
    """Whether a dataset holds the rows of one process alone."""
    import tensorflow as tf

    if not isinstance(dataset, tf.data.Dataset):
        return False
    policy = dataset.options().experimental_distribute.auto_shard_policy
    return policy == tf.data.experimental.AutoShardPolicy.OFF


def check_whole(dataset):
    """Raise where a dataset holds the rows of one process alone.

    Raises:
        ValueError: it would be divided once more, and rows be lost.
    """
    if is_divided(dataset):
        raise ValueError(
            "`dataset` must hold global batches, but is divided among "
            "processes already: rows would be lost. Pass the `Stream` itself "
            "to `strategy.batches(stream)`, and leave its `num_hosts` out. "
            "Received: a dataset whose auto_shard_policy is OFF, as that of "
            "`Stream(num_hosts=...)` and of `strategy.dataset`"
        )


def share(stream, processes, index):
    """The stream of one process, of a stream of global batches.

    Args:
        stream: a `data.pipeline.Stream`, or what has its methods; without
            `of_host` it stays as it is.
        processes, index: ints, how many there are, and which is meant.

    Returns:
        A stream.

    Raises:
        ValueError: a stream that is divided in another way.
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
