"""Writes SavedModel and LiteRT, by Keras' own exports."""

import keras


def write_saved_model(function, path, verbose=None, **kwargs):
    """Write a folder that `tf.saved_model.load` opens."""
    if keras.config.backend() == "jax":
        kwargs["jax2tf_kwargs"] = {
            "polymorphic_shapes": [_polymorphic(function.features)],
            "polymorphic_constraints": _constraints(function),
            # It would be traced again, and without the constraints.
            "with_gradient": False,
        } | kwargs.get("jax2tf_kwargs", {})
    _write(function, path, "tf_saved_model", verbose, kwargs)


def write_litert(function, path, verbose=None, **kwargs):
    """Write a `.tflite` file."""
    _write(function, path, "litert", verbose, kwargs)


def _write(function, path, form, verbose, kwargs):
    signature = {
        name: keras.InputSpec(
            shape=feature.sizes, dtype=feature.dtype, name=name
        )
        for name, feature in function.features.items()
    }
    # `keras.Model`: a class of ours would come here again.
    keras.Model.export(
        function.functional(),
        str(path),
        format=form,
        verbose=verbose,
        input_signature=[signature],
        **kwargs,
    )


def _polymorphic(features):
    """Shapes as JAX writes them, such as `"(batch, tokens)"`."""
    return {
        name: f"({', '.join(map(str, feature.shape))},)"
        for name, feature in features.items()
    }


def _constraints(function):
    used = {n for f in function.features.values() for n in f.shape}
    return [
        f"{axis} <= {size}"
        for axis, size in function.limits.items()
        if axis in used
    ]
