"""The works that the benchmark times, and their contenders, as data."""

import dataclasses
import importlib.util

BACKENDS = ("torch", "jax", "tensorflow")
# Runtimes that are installed here for the processor alone.
RUNTIMES = ("onnxruntime", "openvino")
REFERENCE = "transformers float32"


@dataclasses.dataclass(frozen=True)
class Contender:
    """One way to do a work."""

    name: str  # As in the table.
    library: str  # The package that runs the model.
    beside: str = REFERENCE  # Name of the contender that it is compared with.
    backend: str = "torch"
    dtype: str = "float32"
    compiled: bool = False  # By `torch.compile`.
    file: str = "checkpoint"  # The file that it opens, a key of `save.WRITERS`.
    # Further arguments of the function that does the work.
    settings: dict = dataclasses.field(default_factory=dict)

    def is_reference_only(self):
        return self.beside == self.name

    def left_out_because(self, gpu):
        """Return why it cannot run on this machine, or None."""
        packages = {self.library, self.backend}
        missing = [p for p in packages if importlib.util.find_spec(p) is None]
        if missing:
            return f"{', '.join(sorted(missing))} is not installed"
        if gpu and self.library in RUNTIMES:
            return "it runs on the processor only, and there is a GPU"
        return None


@dataclasses.dataclass(frozen=True)
class Work:
    """One thing to do, by several contenders."""

    title: str  # A heading of the report.
    # `module.name` below `turns`: `(saved, contender, **settings)` to a
    # function from batch and tokens to a turn. If each turn is a new process:
    # to the command of that process.
    function: str
    contenders: list
    batches: tuple = (1,)  # Rows of a turn; `--batches` replaces them.
    fresh: bool = False  # Start a new process for each turn.
    per_row: str = ""  # The name of one row, if the table has its time.
    also: tuple = ()  # Further measurements that the table shows.

    def named(self):
        return {contender.name: contender for contender in self.contenders}


def _ours(backend, dtype="float32", suffix="", **values):
    return Contender(
        f"{backend} {dtype}{suffix}",
        "keras_bridgetower",
        backend=backend,
        dtype=dtype,
        **values,
    )


def _theirs(dtype="float32", compiled=False):
    name = f"transformers {dtype}{' compiled' if compiled else ''}"
    return Contender(name, "transformers", dtype=dtype, compiled=compiled)


def _exported(runtime, dtype):
    # For bfloat16 the runtime converts the weights itself.
    file = "int8_onnx" if dtype == "int8" else "float32_onnx"
    return Contender(f"{runtime} {dtype}", runtime, dtype=dtype, file=file)


def _on_all(dtypes):
    return [_ours(b, d) for b in BACKENDS for d in dtypes]


_BOTH = [_theirs(), _theirs("bfloat16")]

_FORWARD = [
    *(_theirs(d, c) for d in ("float32", "bfloat16") for c in (False, True)),
    *_on_all(("float32", "bfloat16", "mixed_bfloat16")),
    *(_exported("onnxruntime", d) for d in ("float32", "int8")),
    *(_exported("openvino", d) for d in ("float32", "bfloat16", "int8")),
]

_MEMORY = [
    _ours(backend, suffix=suffix, beside=f"{backend} float32", settings=values)
    for backend in BACKENDS
    for suffix, values in (
        ("", {}),
        (", activations computed again", {"recomputed": True}),
    )
]

_CONVERSION = [
    Contender(
        name,
        "keras_bridgetower",
        "safetensors",
        file=file,
        settings={"converted": False},
    )
    for name, file in (("safetensors", "checkpoint"), ("torch.save", "pytorch"))
]

# Each is compared with KerasHub on the same backend.
_IMPORT = [
    Contender(
        name,
        library,
        f"keras_hub on {backend}",
        backend,
        settings={"code": f"from {module} import {cls}\nprint('{{}}')"},
    )
    for backend, name, library, module, cls in (
        *(
            (backend, f"{library} on {backend}", library, module, cls)
            for backend in BACKENDS
            for library, module, cls in (
                ("keras_hub", "keras_hub.models", "RobertaBackbone"),
                ("keras_bridgetower", "keras_bridgetower", "BridgeTowerVQA"),
            )
        ),
        *[("torch", *["transformers"] * 3, "BridgeTowerModel")],
    )
]

WORKS = {
    "forward": Work(
        "Forward pass: matching", "inference.forward", _FORWARD, (1, 4)
    ),
    "ranking": Work(
        "Ranking: one text against pictures",
        "inference.ranking",
        [*_BOTH, *_on_all(("float32", "bfloat16"))],
        (16,),
        per_row="pair",
    ),
    "answer": Work(
        "Answer: from a JPEG file and a question to the answer",
        "inference.answer",
        [*_BOTH, *_on_all(("float32", "bfloat16"))],
    ),
    "steps": Work(
        "Training step: masked language and matching",
        "training.pretraining",
        [*_BOTH, *_on_all(("float32", "mixed_bfloat16"))],
        (4,),
    ),
    "vqa": Work(
        "Training step: question answering",
        "training.vqa",
        [*_BOTH, *_on_all(("float32", "mixed_bfloat16"))],
        (4,),
    ),
    "memory": Work(
        "Memory: activations kept, or computed again",
        "training.memory",
        _MEMORY,
        (4,),
        also=("gigabytes", "reference's gigabytes"),
    ),
    "loading": Work(
        "Loading: from a converted checkpoint to the first output",
        "starts.loading",
        [_theirs(), *_on_all(("float32",))],
        fresh=True,
        also=("loaded / weights", "reference's loaded / weights"),
    ),
    "conversion": Work(
        "Conversion: from a checkpoint that is new here to the first output",
        "starts.loading",
        _CONVERSION,
        fresh=True,
        also=(
            *("processor seconds", "gigabytes"),
            *("reference's processor seconds", "reference's gigabytes"),
        ),
    ),
    "first": Work(
        "First score: from the start of a process to the score of a picture",
        "starts.first_score",
        [_theirs(), *_on_all(("float32",))],
        fresh=True,
    ),
    "import": Work(
        "Import: from the start of a process to its end",
        "starts.program",
        _IMPORT,
        fresh=True,
    ),
}
