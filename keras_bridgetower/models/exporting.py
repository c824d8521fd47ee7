"""`model.export`, in the formats that give the same numbers as the model."""

import os

import keras

from keras_bridgetower.checks import check_choice
from keras_bridgetower.models.checks import TOKEN_FEATURES

# For each format the backends that export the model correctly.
FORMATS = {
    "tf_saved_model": ("tensorflow", "jax"),
    "litert": ("tensorflow",),
    "torch": ("torch",),
}
# Formats that Keras 3.15 writes without an error but wrongly, and what is
# wrong. Found with TensorFlow.
WRONG = {
    "onnx": "the converter leaves out operators, and no program opens the file",
    "openvino": "outputs are added, and numbers differ by 5e-3",
}

# Formats whose outputs may be a dict of tensors, but no dict of dicts.
_FLAT = ("tf_saved_model", "litert")


class Exported(keras.Model):
    """Abstract: a model that can be exported for programs without Keras."""

    def save(self, filepath, *args, **kwargs):
        """Save the model to a `.keras` file, as `keras.Model.save`.

        Raises:
            ValueError: a file of Keras' old format.
        """
        if str(filepath).endswith((".h5", ".hdf5")):
            raise ValueError(
                "`filepath` must end with `.keras`. Keras' old format would "
                "write a file that nothing can load; `save_weights` takes "
                f"`.weights.h5`. Received: filepath={str(filepath)!r}"
            )
        super().save(filepath, *args, **kwargs)

    def export(
        self,
        filepath,
        format="tf_saved_model",
        verbose=None,
        input_signature=None,
        **kwargs,
    ):
        """Write the forward pass for programs without Keras.

        The exported function takes the features that a preprocessor makes,
        not pictures and strings.

        Args:
            filepath: path of the new file or folder.
            format: `"tf_saved_model"` (with TensorFlow or JAX), `"litert"`
                (TensorFlow), or `"torch"` (PyTorch, for batches of one).
            verbose, **kwargs: as `keras.Model.export`.
            input_signature: list of one dict of `keras.InputSpec`. By default
                batches may have any size. Texts are as long as the
                preprocessor makes them, or else as long as the text encoder
                allows.

        Raises:
            ValueError: a format that this backend does not write correctly,
                or that cannot hold the nested outputs of pre-training.
        """
        check_choice("format", format, (*FORMATS, *WRONG))
        backend = keras.config.backend()
        if format in WRONG:
            raise ValueError(
                f"`format={format!r}` is not written, as {WRONG[format]}. Use "
                f"one of {list(FORMATS)}. Received: format={format!r}"
            )
        if backend not in FORMATS[format]:
            raise ValueError(
                f"`format={format!r}` is written with KERAS_BACKEND set to "
                f"one of {list(FORMATS[format])}. Save the model by "
                "`model.save`, load it there, and export. Received: "
                f"format={format!r} with {backend}"
            )
        if format in _FLAT and _is_nested(self.output):
            raise ValueError(
                f"`format={format!r}` takes outputs that are tensors, no dicts "
                "of them. Export the task that reads the head you need, made "
                "by its `from_preset` of what `save_to_preset` wrote. "
                f"Received: {type(self).__name__} with the outputs "
                f"{sorted(self.output)}"
            )
        super().export(
            os.fspath(filepath),
            format=format,
            verbose=verbose,
            input_signature=input_signature or [_signature(self)],
            **kwargs,
        )


def _is_nested(output):
    among = output.values() if isinstance(output, dict) else ()
    return any(isinstance(x, dict) for x in among)


def _signature(model):
    """Input specs of a model, with a free batch size and fixed lengths."""
    preprocessor = getattr(model, "preprocessor", None)
    encoder = getattr(model, "backbone", model).text_encoder
    length = encoder.max_sequence_length
    if "token_ids" in model.input and preprocessor is not None:
        length = preprocessor.tokenizer.sequence_length
    masks = getattr(preprocessor, "max_masks", None) or length
    specs = {}
    for name, x in model.input.items():
        free = length if name in TOKEN_FEATURES else masks
        sizes = [free if size is None else size for size in x.shape[1:]]
        specs[name] = keras.InputSpec(
            shape=(None, *sizes), dtype=x.dtype, name=name
        )
    return specs
