"""Uses of private names of Keras, and state that modules share."""

import ast
import functools
import pathlib
import re

import keras
import pytest

import keras_bridgetower as kbt

PACKAGE = pathlib.Path(kbt.__file__).parent
PRIVATE = "backend/keras_private/"
# Private names of other libraries.
FOREIGN = {
    *(("torch", "_foreach_"), ("os", "_exit")),
    # What PyTorch runs for attention on a CPU; a plan counts what it keeps.
    ("torch.ops.aten", "_scaled_dot_product_flash_attention_for_cpu"),
    # Of a named tuple, documented.
    ("self", "_field_defaults"),
    # TensorFlow; without it the labels of a stream are unknown.
    ("dataset", "_input_dataset"),
    # Gradio, of one version; by it the page tells its components apart.
    ("shown[0]", "_id"),
}
# Private names of Keras that our subclasses override or set, and why.
OVERRIDDEN = {
    ("BridgeTowerAttention", "_compute_attention"): (
        "Keras never fuses a layer that was built with dropout; a Keras "
        "without the method never calls ours"
    ),
    ("BridgeTowerAttention", "_masked_softmax"): (
        "passes weights to watchers; as above"
    ),
    ("AdamW", "_backend_update_step"): (
        "many variables at once on PyTorch; a Keras without the method calls "
        "`update_step` for each"
    ),
    ("AdamW", "_get_variable_index"): (
        "Keras' documentation of `Optimizer` tells subclasses to call it"
    ),
}

pytestmark = pytest.mark.skipif(
    keras.config.backend() != "torch",
    reason="the same code with every backend, and this one traces nothing",
)


@functools.cache
def trees():
    """Return the syntax trees of all modules, by path in the package."""
    return {
        path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
        for path in sorted(PACKAGE.rglob("*.py"))
    }


def is_private(name):
    return name.startswith("_") and not name.endswith("__")


def literal_name(node):
    """Return the name in `getattr(x, "name")` and similar calls, or None."""
    called = getattr(node.func, "id", getattr(node.func, "attr", ""))
    named = {"getattr", "setattr", "hasattr", "delattr", "__setattr__"}
    if called in named and len(node.args) > 1:
        return getattr(node.args[1], "value", None)
    return None


def named_in(tree):
    """Yield `(owner, name)` of every private name that is read or set."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            yield ast.unparse(node.value), node.attr
        elif isinstance(node, ast.Call):
            name = literal_name(node)
            if isinstance(name, str) and is_private(name):
                yield ast.unparse(node.args[0]), name


def defined_in(tree):
    """Yield the names that a module defines or sets on `self`."""
    for node in ast.walk(tree):
        if isinstance(
            node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef
        ):
            yield node.name
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id
        elif isinstance(node, ast.Attribute) and isinstance(
            node.ctx, ast.Store
        ):
            if ast.unparse(node.value) == "self":
                yield node.attr
        elif isinstance(node, ast.Call):
            called = ast.unparse(node.func)
            if called in ("object.__setattr__", "setattr"):
                yield literal_name(node)


def test_private_names_of_keras_are_in_one_folder():
    known = {name for tree in trees().values() for name in defined_in(tree)}
    known |= {name for _, name in OVERRIDDEN}
    odd = [
        (path, f"{owner}.{name}")
        for path, tree in trees().items()
        if not path.startswith(PRIVATE)
        for owner, name in named_in(tree)
        if name not in known
        and not any(owner == o and name.startswith(n) for o, n in FOREIGN)
    ]
    assert odd == []


CHANGES = {
    *("append", "extend", "insert", "remove", "pop", "clear", "add"),
    *("discard", "update", "setdefault", "popitem", "set", "reset"),
}
STATEFUL = ("ContextVar", "threading.local", "ThreadPoolExecutor")
CACHES = ("functools.cache", "functools.lru_cache", "functools.singledispatch")


def shared_in(tree):
    """Yield names of a module whose values may change after its import."""
    module_names = set()
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            targets = getattr(node, "targets", None) or [node.target]
            for target in targets:
                for name in ast.walk(target):
                    if isinstance(name, ast.Name):
                        module_names.add(name.id)
                value = ast.unparse(node.value)
                if any(kind in value for kind in STATEFUL):
                    yield ast.unparse(target)
        if isinstance(node, ast.FunctionDef):
            decorators = map(ast.unparse, node.decorator_list)
            if any(d.startswith(CACHES) for d in decorators):
                yield node.name
    for node in ast.walk(tree):
        changed = []
        if isinstance(node, ast.Global):
            yield from node.names
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(
            node.ctx, ast.Store | ast.Del
        ):
            changed = [node.value]
        elif isinstance(node, ast.Call) and isinstance(
            node.func, ast.Attribute
        ):
            changed = [node.func.value] if node.func.attr in CHANGES else []
        for one in changed:
            if isinstance(one, ast.Name) and one.id in module_names:
                yield one.id


def test_shared_state_is_documented():
    """`docs/architecture.md` says why each is thread-safe."""
    text = (PACKAGE.parent / "docs" / "architecture.md").read_text()
    part = text.split("## State that is shared")[1].split("\n## ")[0]
    listed = set(re.findall(r"^\| `([\w/.]+)` \| `(\w+)` \|", part, re.M))
    found = {
        (path, name)
        for path, tree in trees().items()
        for name in shared_in(tree)
    }
    assert found == listed
