"""Whether the packages of the server's extras are installed."""

import importlib.util

# An extra, and modules of its packages.
HTTP = (
    "serve",
    (
        "uvicorn",
        "fastapi",
        "fastapi_offline",
        "aiohttp",
        "prometheus_client",
        "pydantic",
    ),
)
RAY = ("ray", ("ray",))


def check_installed(*extras):
    """Refuse to serve without them.

    Args:
        *extras: pairs of the name of an extra and a tuple of its modules.

    Raises:
        ImportError: one is not installed; names the extras.
    """
    missing = [
        name
        for _, names in extras
        for name in names
        if importlib.util.find_spec(name) is None
    ]
    if missing:
        named = ",".join(extra for extra, _ in extras)
        raise ImportError(
            f"The server needs the packages {', '.join(missing)}: "
            f"pip install 'keras-bridgetower[{named}]'"
        )
