"""Overrides methods of `keras.Model`, and quantizes layers without values."""

import contextlib
import gc

import keras

from keras_bridgetower.backend.keras_private import is_known
from keras_bridgetower.backend.keras_private.trainers import BuiltByOneReplica


class PatchedModel(BuiltByOneReplica):
    """Mixin of models: rejects `clone_model`, and quantizes in seconds.

    It is no `keras.Model`: Keras changes the order of bases of a model class
    that several models share.
    """

    def _run_through_graph(self, *args, **kwargs):
        # Only `clone_model` passes both. It would return a plain model.
        if {"operation_fn", "call_fn"} <= set(kwargs):
            raise NotImplementedError(
                "`clone_model` would return a plain `keras.Model`: use "
                f"`copy.deepcopy` or `from_config`. Received: {self.name}"
            )
        return super()._run_through_graph(*args, **kwargs)

    def quantize(self, mode=None, config=None, filters=None, **kwargs):
        """Quantize the weights, as `keras.Model.quantize`.

        Keras raises for layers that were never built. An EfficientNet without
        squeeze and excitation has some. Here they are left out, unless
        patterns of names choose them.
        """
        if filters is None or callable(filters):
            filters = _choose_built(filters)
        with _older_objects_frozen():
            super().quantize(mode, config, filters, **kwargs)


def _choose_built(chosen):
    return lambda layer: layer.built and (chosen is None or chosen(layer))


@contextlib.contextmanager
def _older_objects_frozen():
    """Exclude older objects from garbage collection in the `with` block.

    Keras collects garbage whenever a layer replaces its weight. With the
    frameworks imported, each collection took one to two seconds.
    """
    # Unfreezing would also thaw the objects that the process froze itself.
    thaw = not gc.get_freeze_count()
    gc.freeze()
    try:
        yield
    finally:
        if thaw:
            gc.unfreeze()
        gc.collect()


# Attributes of Keras' layers for the weights that become integers.
_BECOME_INTEGERS = ("_kernel", "_embeddings", "reverse_embeddings")


def quantize_without_values(layer, config, policy):
    """Quantize a built layer whose weights will all be loaded afterwards.

    The integers are zeros. `layer.quantize` would compute them, and collect
    garbage for each layer, which takes most of the time. It is used on an
    unknown Keras.

    Args:
        layer: a Dense, EinsumDense or embedding layer that has no adapter.
        config: a `keras.quantizers.QuantizationConfig`.
        policy: str, dtype policy of the quantized layer.

    Raises:
        ValueError: the layer is already quantized, or of another class.
    """
    if not is_known():
        layer.quantize(config=config)
        return
    found = [vars(layer).get(name) for name in _BECOME_INTEGERS]
    replaced = [v for v in found if isinstance(v, keras.Variable)]
    layer._check_quantize_args(config.mode, layer.compute_dtype)
    if not replaced or not hasattr(layer, "quantization_config"):
        raise ValueError(
            "Only Dense, EinsumDense and embedding layers can be quantized. "
            f"Received: {layer.path} of class {type(layer).__name__}"
        )
    layer._tracker.unlock()
    try:
        for variable in replaced:
            layer._untrack_variable(variable)
        layer.quantization_config = config
        layer.quantized_build(replaced[0].shape, config.mode, config)
    finally:
        layer._tracker.lock()
    layer.dtype_policy = policy
