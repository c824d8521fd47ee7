"""Whether the packages of the extra `serve` are installed."""

import importlib.util

_PACKAGES = ("ray", "fastapi", "aiohttp", "prometheus_client", "pydantic")


def check_installed():
    """Refuse to serve without them.

    Raises:
        ImportError: one is not installed; names the extra.
    """
    missing = [n for n in _PACKAGES if importlib.util.find_spec(n) is None]
    if missing:
        raise ImportError(
            f"The server needs the packages {', '.join(missing)}: "
            "pip install 'keras-bridgetower[serve]'"
        )
