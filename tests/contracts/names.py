"""The contracts that the lists beside this file hold, as the code has them.

    KERAS_BACKEND=torch python tests/contracts/names.py

writes the lists anew, after a change that is meant.
"""

import ast
import functools
import importlib
import inspect
import pathlib
import re

import keras

import keras_bridgetower as kbt
from keras_bridgetower.presets import manifest

HERE = pathlib.Path(__file__).parent
PACKAGE = pathlib.Path(kbt.__file__).parent
# The faces with names of their own, and the one that gathers them.
FACES = ("", "analysis", "data", "metrics", "search", "training")
FACES += ("training.recipes",)


def public_names():
    """Each public name with its signature, each public method once."""
    return [line for face in FACES for line in _face(face)]


def exports(face):
    """The public names of a face, as its stub or its module gives them."""
    folder = pathlib.Path(_module(face).__file__).parent
    stub = folder / "__init__.pyi"
    source = stub if stub.is_file() else folder / "__init__.py"
    return sorted(
        alias.name
        for node in ast.parse(source.read_text()).body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
        if alias.name == alias.asname and alias.name[:2] != "__"
    )


def public(face):
    """dict from each public name of a face to what it stands for."""
    return {name: getattr(_module(face), name) for name in exports(face)}


def _module(face):
    return functools.reduce(getattr, filter(None, face.split(".")), kbt)


def _face(face):
    prefix = f"kbt.{face}".removesuffix(".")
    for name, value in public(face).items():
        path = f"{prefix}.{name}"
        if inspect.isclass(value):
            yield path + _signature(value.__init__)
            for method, function in methods(value).items():
                yield f"{path}.{method}{_signature(function)}"
        elif callable(value):
            yield path + _signature(value)
        else:
            yield path


def methods(cls):
    """The public methods of a class that the package wrote.

    Those that it has from another public class stand there.
    """
    inherited = {
        function
        for base in public("").values()
        if inspect.isclass(base) and base is not cls and issubclass(cls, base)
        for function in _methods(base).values()
    }
    return {k: f for k, f in _methods(cls).items() if f not in inherited}


def _methods(cls):
    found = {}
    for name in sorted(dir(cls)):
        value = inspect.getattr_static(cls, name)
        value = getattr(value, "__func__", value)
        if (
            name[0] != "_"
            and inspect.isfunction(value)
            and value.__module__.startswith("keras_bridgetower")
        ):
            found[name] = value
    return found


def _signature(function):
    signature = inspect.signature(function)
    parameters = [
        parameter.replace(annotation=inspect.Parameter.empty)
        for parameter in signature.parameters.values()
        if parameter.name not in ("self", "cls")
    ]
    signature = inspect.Signature(parameters)
    return re.sub(r" at 0x[0-9a-f]+", "", str(signature))


def registered_names():
    """The names by which saved files find the classes of the package."""
    for path in PACKAGE.rglob("*.py"):
        if "register_keras_serializable" in path.read_text():
            parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
            importlib.import_module(".".join(parts))
    # Examples of docstrings register classes of a user's own.
    return sorted(
        name
        for name in keras.saving.get_custom_objects()
        if name.startswith("keras_bridgetower>")
    )


def preset_sums():
    """The sum of each file of the presets of drawings but their pages."""
    drawings = PACKAGE.parent / "preset_packages/drawings"
    return [
        f"{folder.name} {name} {digest}"
        for folder in sorted(drawings.glob("*/bridgetower_*"))
        for name, digest in manifest.folder_sums(folder).items()
        if name != "README.md"
    ]


LISTS = {
    "public_names.txt": public_names,
    "registered_names.txt": registered_names,
    "preset_sums.txt": preset_sums,
}


if __name__ == "__main__":
    for name, made in LISTS.items():
        (HERE / name).write_text("\n".join(made()) + "\n")
