"""Hook by which presets open and write weights of other libraries.

`convert` does this, but presets may not import it, because it is on a higher
layer. So `convert` registers its functions here when the package is imported.
"""

_CONVERSIONS = {}


def register(open_foreign, export):
    """Register the functions that open and write other libraries' weights.

    Args:
        open_foreign: callable that takes a path, and facts about a published
            repository or None, and returns a `PresetFolder`.
        export: callable that takes a model and the path of a new folder.
    """
    _CONVERSIONS.update(open_foreign=open_foreign, export=export)


def open_foreign(path, published):
    """A `PresetFolder` for weights of another library."""
    return _CONVERSIONS["open_foreign"](path, published)


def export(model, path):
    """Write a backbone or a task as a `transformers` folder."""
    _CONVERSIONS["export"](model, path)
