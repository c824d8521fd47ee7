"""Weights of other libraries: who opens and who writes them.

`convert` does both and stands above the presets, so it says so here when the
package is imported.
"""

_CONVERSIONS = {}


def register(opened, export):
    """Say how weights of other libraries are opened and written.

    Args:
        opened: callable from a path, and facts of a published repository or
            None, to a `PresetFolder`.
        export: callable from a model and a path of a new folder.
    """
    _CONVERSIONS.update(opened=opened, export=export)


def opened(path, published):
    """The `PresetFolder` of weights of another library."""
    return _CONVERSIONS["opened"](path, published)


def export(model, path):
    """Write a backbone or task as a `transformers` folder."""
    _CONVERSIONS["export"](model, path)
