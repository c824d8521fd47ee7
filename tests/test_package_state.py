"""Private names of Keras are used in one folder alone."""

import ast
import pathlib

import keras
import pytest

import keras_bridgetower as kbt

PACKAGE = pathlib.Path(kbt.__file__).parent
PRIVATE = "backend/keras_private/"
# Private names of other libraries: PyTorch, Python, TensorFlow (without which
# the labels of a stream are unknown), and Gradio, of one version.
FOREIGN = {"_exit", "_input_dataset", "_id"}
# Private names of Keras that our subclasses override or call. A Keras without
# the methods never calls ours; the documentation of `Optimizer` tells
# subclasses to call the last one.
OVERRIDDEN = {
    *("_compute_attention", "_masked_softmax"),
    *("_backend_update_step", "_get_variable_index"),
}

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch",
    reason="the same code with every backend, and this one traces nothing",
)


def names(tree):
    """The private names that a module reads or sets, and all that it defines.

    Also by their text, as in `getattr(x, "_name")`.
    """
    used, defined = set(), set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            own = ast.unparse(node.value) in ("self", "cls")
            stored = own and isinstance(node.ctx, ast.Store)
            (defined if stored else used).add(node.attr)
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            defined.add(node.id)
        elif hasattr(node, "name"):
            defined.add(node.name)
        elif isinstance(node, ast.Call) and len(node.args) > 1:
            called = ast.unparse(node.func)
            name = getattr(node.args[1], "value", None)
            if called.endswith("attr__") or called == "setattr":
                defined.add(name)
            elif called.endswith("attr") and isinstance(name, str):
                used.add(name)
    private = {n for n in used if n[:1] == "_" and n[-2:] != "__"}
    return private, defined


def test_private_names_of_keras_are_in_one_folder():
    found = {
        path.relative_to(PACKAGE).as_posix(): names(ast.parse(path.read_text()))
        for path in sorted(PACKAGE.rglob("*.py"))
    }
    own = OVERRIDDEN.union(*(defined for _, defined in found.values()))
    odd = {
        (path, name)
        for path, (private, _) in found.items()
        if not path.startswith(PRIVATE)
        for name in private - own - FOREIGN
        if not name.startswith("_foreach_")
    }
    assert odd == set()
