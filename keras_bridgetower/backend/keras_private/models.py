"""Overrides methods of `keras.Model` that do not fit this package's models."""

import contextlib
import gc

from keras_bridgetower.backend.keras_private.trainers import BuiltByOneReplica


class PatchedModel(BuiltByOneReplica):
    """Mixin of models: refuses `clone_model`, and quantizes in seconds.

    Not a `keras.Model`: in the bases of one that several models share, Keras
    puts `Functional` before the other bases of some.
    """

    def _run_through_graph(self, *args, **kwargs):
        # Only `clone_model` passes both. It would return a plain model.
        if {"operation_fn", "call_fn"} <= set(kwargs):
            raise NotImplementedError(
                "`clone_model` would return a plain `keras.Model`. Copy the "
                "model by `copy.deepcopy(model)`, or without its weights by "
                "`type(model).from_config(model.get_config())`. "
                f"Received: model={self.name}"
            )
        return super()._run_through_graph(*args, **kwargs)

    def quantize(self, *args, **kwargs):
        """Quantize the weights, as `keras.Model.quantize`."""
        with _searched_once():
            super().quantize(*args, **kwargs)


@contextlib.contextmanager
def _searched_once():
    """A context in which a search for garbage leaves out older objects.

    Keras makes Python search the whole process for garbage whenever a layer
    replaces its weight. With the frameworks imported this took one to two
    seconds for each layer.
    """
    if gc.get_freeze_count():
        # This process has frozen its objects itself.
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
        gc.collect()
