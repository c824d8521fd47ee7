"""What is compared: a library, a precision and a way to run each."""

import dataclasses
import importlib.util

BACKENDS = ("torch", "jax", "tensorflow")
# Runtimes that are installed here for the processor alone.
RUNTIMES = ("onnxruntime", "openvino")
# The default that contenders are compared with.
REFERENCE = "transformers float32"


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do the work.

    Args:
        name: str, as the table shows it.
        library: str, the package that runs the model.
        beside: str, name of the contender that it is compared with.
        backend: str, the value of KERAS_BACKEND.
        dtype: str, `"float32"`, `"bfloat16"`, `"mixed_bfloat16"` or `"int8"`.
        compiled: bool or `"auto"`, the `jit_compile` of Keras; of
            transformers, whether `torch.compile` is used.
        file: str, the file that it opens: a key of `save.WRITERS`.
        settings: dict of further arguments of the class that does the work.
    """

    name: str
    library: str
    beside: str = REFERENCE
    backend: str = "torch"
    dtype: str = "float32"
    compiled: bool | str = "auto"
    file: str = "checkpoint"
    settings: dict = dataclasses.field(default_factory=dict)

    def is_reference_only(self):
        """Whether it is only there to be compared with."""
        return self.beside == self.name

    def left_out_because(self, gpu):
        """Why it cannot take part on this machine, or None.

        Args:
            gpu: str, name of the GPU, or None.
        """
        packages = {self.library, self.backend}
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        if missing:
            return f"{', '.join(sorted(missing))} is not installed"
        if gpu and self.library in RUNTIMES:
            return "it runs on the processor only, and there is a GPU"
        return None


def ours(backend, dtype="float32", said="", **values):
    """This package; `said` is added to the name."""
    return Contender(
        f"{backend} {dtype}{said}",
        "keras_bridgetower",
        backend=backend,
        dtype=dtype,
        **values,
    )


def theirs(dtype="float32", compiled=False):
    """transformers on PyTorch."""
    name = f"transformers {dtype}{' compiled' if compiled else ''}"
    return Contender(name, "transformers", dtype=dtype, compiled=compiled)


def exported(runtime, dtype):
    """A file that this package exported, in a runtime without Keras."""
    # With bfloat16 the runtime converts the weights itself.
    file = "int8_onnx" if dtype == "int8" else "float32_onnx"
    return Contender(f"{runtime} {dtype}", runtime, dtype=dtype, file=file)


def on_all(dtypes, said="", **values):
    """This package on every backend in each of the precisions."""
    return [ours(b, d, said, **values) for b in BACKENDS for d in dtypes]
