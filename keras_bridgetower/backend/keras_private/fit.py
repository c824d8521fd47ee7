"""Uses private parts of Keras for the data and the epochs of `fit`."""

from keras_bridgetower.backend.keras_private import patches as keras_patches


def read_again(batches):
    """A data source for `fit` that calls `batches` in each epoch.

    Keras' public interface reads a generator only once. For an unknown Keras
    the result is such a generator.

    Args:
        batches: callable that returns a generator of batches.
    """
    if not keras_patches.is_known():
        return batches()
    from keras.src.trainers.data_adapters import generator_data_adapter

    adapter = generator_data_adapter.GeneratorDataAdapter(batches())
    adapter.generator = batches
    return adapter


def forget_continued(model):
    """Let `fit` start at its `initial_epoch`.

    Keras' `BackupAndRestore` stores in the model the epoch at which it
    continued, and every later `fit` would skip the epochs before it. For an
    unknown Keras nothing is done.
    """
    if keras_patches.is_known():
        model._initial_epoch = None


def forget_evaluation(model):
    """Release the validation data of a `fit` that ended with an error.

    Keras keeps their iterator until the next `fit`. For an unknown Keras
    nothing is done.

    Args:
        model: a `keras.Model`.
    """
    if not keras_patches.is_known():
        return
    if vars(model).get("_eval_epoch_iterator") is not None:
        model._eval_epoch_iterator = None
