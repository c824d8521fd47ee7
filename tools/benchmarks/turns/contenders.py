"""What is compared: a library, a precision and a way to compile each."""

import dataclasses


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to run the model.

    Args:
        name: str, as the table shows it.
        library: `"keras_bridgetower"`, `"transformers"`, or what runs a file
            that this package exported: `"onnxruntime"`, `"openvino"`.
        backend: str, the value of KERAS_BACKEND.
        dtype: str, `"float32"`, `"bfloat16"`, `"mixed_bfloat16"` or `"int8"`.
        compiled: bool or `"auto"`, the `jit_compile` of Keras; of
            transformers, whether `torch.compile` is used.
        attention_dropout: float, or None for that of the checkpoint; for
            training steps.
    """

    name: str
    library: str
    backend: str = "torch"
    dtype: str = "float32"
    compiled: bool | str = "auto"
    attention_dropout: float | None = None


# All others are compared with this one.
REFERENCE = "transformers float32"


def _ours(backend, dtype, compiled="auto"):
    suffix = {"auto": "", True: " XLA"}[compiled]
    name = f"{backend} {dtype}{suffix}"
    return Contender(name, "keras_bridgetower", backend, dtype, compiled)


def _theirs(dtype, compiled=False):
    name = f"transformers {dtype}{' compiled' if compiled else ''}"
    return Contender(name, "transformers", dtype=dtype, compiled=compiled)


CONTENDERS = {
    contender.name: contender
    for contender in (
        *(
            _theirs(dtype, compiled)
            for dtype in ("float32", "bfloat16")
            for compiled in (False, True)
        ),
        *(
            _ours(backend, dtype)
            for backend in ("torch", "jax", "tensorflow")
            for dtype in ("float32", "bfloat16", "mixed_bfloat16")
        ),
        _ours("tensorflow", "float32", True),
        *(
            Contender(f"{runtime} {dtype}", runtime, dtype=dtype)
            for runtime, dtypes in (
                ("onnxruntime", ("float32", "int8")),
                ("openvino", ("float32", "bfloat16", "int8")),
            )
            for dtype in dtypes
        ),
    )
}

# For training steps: the attention weights with and without dropout.
TRAINED = {
    contender.name: contender
    for contender in (
        CONTENDERS[REFERENCE],
        CONTENDERS["transformers bfloat16"],
        *(
            dataclasses.replace(
                _ours(backend, dtype),
                name=f"{backend} {dtype}{said}",
                attention_dropout=rate,
            )
            for backend in ("torch", "jax", "tensorflow")
            for dtype, said, rate in (
                ("float32", "", None),
                ("float32", ", attention_dropout=0", 0.0),
                ("mixed_bfloat16", "", None),
            )
        ),
    )
}
