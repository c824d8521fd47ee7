"""Imports of the packages of the extra `search`."""

import importlib


def imported(package):
    """Import a package that only some users need.

    Args:
        package: str, name of the module.

    Returns:
        The module.

    Raises:
        ImportError: it is not installed; names the extra.
    """
    try:
        return importlib.import_module(package)
    except ImportError as error:
        raise ImportError(
            f"This store needs the package {package!r}: "
            "pip install 'keras-bridgetower[search]'"
        ) from error
