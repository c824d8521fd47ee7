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


@pytest.mark.parametrize(
    "text, note",
    [
        ("refused: `y` must be 1.5 at most. Received: y=2", "1.5 at most."),
        ("refused: No y: none came. Received: y=None", "No y: none came."),
        ("skipped: no such package", "Skipped: no such package."),
    ],
)
def test_notes(text, note):
    notes = {}
    assert conformance.sign(text, notes) == "1"
    assert [*notes][0].endswith(note)
