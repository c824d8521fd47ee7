"""Keras' private parts that `fit` meets, as `keras_patches`."""

from keras_bridgetower import keras_patches


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
