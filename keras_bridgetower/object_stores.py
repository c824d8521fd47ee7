"""Opens object stores, such as `s3://bucket/folder`, by fsspec."""

from keras_bridgetower.checks import load_extra

# Seconds without a byte after which a try ends.
STALLED = 30.0


def open_store(url, stalled=STALLED):
    """Return the file system of a URL, and the path of the URL in it.

    Credentials are those of the platform: environment variables, files and
    services that the libraries of the store know.

    Args:
        url: str.
        stalled: float, seconds without a byte after which `https` gives up.
    """
    fsspec = load_extra("fsspec", "object_stores")
    options = {}
    if url.startswith("http"):
        aiohttp = load_extra("aiohttp", "object_stores")
        # By default all of a file must come in five minutes.
        waits = aiohttp.ClientTimeout(total=None, sock_read=stalled)
        options["client_kwargs"] = {"timeout": waits}
    return fsspec.core.url_to_fs(url, **options)
