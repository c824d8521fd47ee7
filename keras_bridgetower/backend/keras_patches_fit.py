"""Keras' private parts that `fit` meets, as `keras_patches`."""

from keras_bridgetower.backend import keras_patches


def read_again(batches):
    """What Keras reads anew in each epoch; an unknown Keras reads it once.

    In public it reads only datasets and generators of no known length, and
    the latter once.

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
    """Let `fit` start at the epoch that it is told.

    Keras' `BackupAndRestore` leaves the epoch at which it went on in the
    model, and each later `fit` would leave out the epochs before it. Of an
    unknown Keras it stays.
    """
    if keras_patches.is_known():
        model._initial_epoch = None


def forget_evaluation(model):
    """Let go of the validation data of a `fit` that an error ended.

    Keras keeps their iterator until the next `fit`. Nothing is done to an
    unknown Keras, where it may be kept elsewhere.

    Args:
        model: a `keras.Model`.
    """
    if not keras_patches.is_known():
        return
    if vars(model).get("_eval_epoch_iterator") is not None:
        model._eval_epoch_iterator = None
