"""What the benchmark times: each work, and the contenders that do it."""

import dataclasses

from turns import starts
from turns.contenders import BACKENDS
from turns.contenders import Contender
from turns.contenders import exported
from turns.contenders import on_all
from turns.contenders import ours
from turns.contenders import theirs
from turns.runners import Fresh
from turns.runners import Resident


@dataclasses.dataclass(frozen=True)
class Work:
    """One thing to do, by several contenders.

    Args:
        title: str, a heading of the report.
        module: str, the module of this package that does it.
        runner: `Resident` or `Fresh`: whether a process takes many turns.
        contenders: list of `Contender`.
        batches: tuple of int, rows of a turn; `--batches` replaces them for a
            `Resident`.
        per_row: str, what one row is, if the table gives its time; or "".
        also: tuple of str, what else was measured and stands in the table.
    """

    title: str
    module: str
    runner: type
    contenders: list
    batches: tuple = (1,)
    per_row: str = ""
    also: tuple = ()

    def named(self):
        """The contenders by their names."""
        return {contender.name: contender for contender in self.contenders}


_BOTH = [theirs(), theirs("bfloat16")]

_FORWARD = [
    *(theirs(d, c) for d in ("float32", "bfloat16") for c in (False, True)),
    *on_all(("float32", "bfloat16", "mixed_bfloat16")),
    ours("tensorflow", "float32", " XLA", compiled=True),
    *(exported("onnxruntime", d) for d in ("float32", "int8")),
    *(exported("openvino", d) for d in ("float32", "bfloat16", "int8")),
]

_RANKING = [
    *_BOTH,
    *on_all(("float32", "bfloat16")),
    *on_all(("float32",), ", pictures encoded too", settings={"cached": False}),
]

# The attention weights with and without dropout, and the pictures encoded
# once for both objectives or once for each.
_STEPS = [
    *_BOTH,
    *on_all(("float32", "mixed_bfloat16")),
    *on_all(
        ("float32",),
        ", attention_dropout=0",
        settings={"attention_dropout": 0.0},
    ),
    *(
        ours(
            backend,
            said=", two passes",
            beside=f"{backend} float32",
            settings={"passes": 2},
        )
        for backend in BACKENDS
    ),
]

_MEMORY = [
    made
    for backend in BACKENDS
    for kept in [f"{backend} float32"]
    for made in (
        ours(backend, beside=kept),
        ours(
            backend,
            said=", activations computed again",
            beside=kept,
            settings={"recomputed": True},
        ),
    )
]


_FIRST = [
    dataclasses.replace(contender, settings={"code": code})
    for contender, code in (
        (theirs(), starts.TRANSFORMERS),
        *((ours(backend), starts.OURS) for backend in BACKENDS),
    )
]


def _conversion(weights, file):
    return Contender(
        weights,
        "keras_bridgetower",
        "safetensors",
        file=file,
        settings={"converted": False},
    )


def _import(name, library, beside, statement, backend="torch"):
    code = {"code": f"{statement}\nprint('{{}}')"}
    return Contender(name, library, beside, backend, settings=code)


_IMPORT = [
    _import(name, library, f"keras_hub on {backend}", statement, backend)
    for backend in BACKENDS
    for name, library, statement in (
        (
            f"keras_hub on {backend}",
            "keras_hub",
            "from keras_hub.models import RobertaBackbone",
        ),
        (
            f"keras_bridgetower on {backend}",
            "keras_bridgetower",
            "from keras_bridgetower import BridgeTowerVQA",
        ),
    )
]
_IMPORT.append(
    _import(
        "transformers",
        "transformers",
        "keras_hub on torch",
        "from transformers import BridgeTowerModel",
    )
)

WORKS = {
    "forward": Work(
        "Forward pass: matching",
        "forward",
        Resident,
        _FORWARD,
        (1, 4),
    ),
    "ranking": Work(
        "Ranking: one text against pictures",
        "ranking",
        Resident,
        _RANKING,
        (16,),
        per_row="pair",
    ),
    "answer": Work(
        "Answer: from a JPEG file and a question to the answer",
        "answer",
        Resident,
        [*_BOTH, *on_all(("float32", "bfloat16"))],
    ),
    "steps": Work(
        "Training step: masked language and matching",
        "steps",
        Resident,
        _STEPS,
        (4,),
    ),
    "vqa": Work(
        "Training step: question answering",
        "vqa",
        Resident,
        [*_BOTH, *on_all(("float32", "mixed_bfloat16"))],
        (4,),
    ),
    "memory": Work(
        "Memory: activations kept, or computed again",
        "memory",
        Resident,
        _MEMORY,
        (4,),
        also=("gigabytes", "reference's gigabytes"),
    ),
    "loading": Work(
        "Loading: from a converted checkpoint to the first output",
        "loading",
        Fresh,
        [theirs(), *on_all(("float32",))],
        also=(
            "weights / plain read",
            "loaded / weights",
            "reference's loaded / weights",
        ),
    ),
    "conversion": Work(
        "Conversion: from a checkpoint that is new here to the first output",
        "loading",
        Fresh,
        [
            _conversion("safetensors", "checkpoint"),
            _conversion("torch.save", "pytorch"),
        ],
        also=(
            *("processor seconds", "gigabytes"),
            *("reference's processor seconds", "reference's gigabytes"),
        ),
    ),
    "first": Work(
        "First score: from the start of a process to the score of a picture",
        "starts",
        Fresh,
        _FIRST,
    ),
    "import": Work(
        "Import: from the start of a process to its end",
        "starts",
        Fresh,
        _IMPORT,
    ),
}
