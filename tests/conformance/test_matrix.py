"""The matrix in docs/conformance.md, of outcomes made up."""

import conformance
import keras
import pytest

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch", reason="it meets no backend"
)


def test_cells():
    cell = ("A row", "vqa")
    found = {
        "tensorflow": {cell: "right", ("Another", "nlvr2"): "right"},
        "jax": {cell: "refused: `y` must go. It came. Received: y=1"},
        "torch": {cell: "FAILS", ("Another", "nlvr2"): "right"},
    }
    assert conformance.table(found) == (
        "| | vqa | nlvr2 |\n"
        "|---|---|---|\n"
        "| A row | ✓ 1 ✗ | · |\n"
        "| Another | · | ✓ · ✓ |\n"
        "\n"
        "1. Refused: `y` must go.\n"
    )


def test_notes():
    notes = {}
    for text in (
        "refused: `y` must be 1.5 at most. Received: y=2",
        "skipped: no such package",
    ):
        conformance.sign(text, notes)
    first, second = notes
    assert first.endswith("1.5 at most.") and "no such package" in second
