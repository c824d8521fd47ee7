"""A server that speaks S3, for tests of object stores."""

import contextlib
import urllib.request

import pytest


@contextlib.contextmanager
def bucket(name, monkeypatch):
    """Yield boto3's client of a new bucket, which s3fs finds by `s3://NAME`.

    Processes that the test starts find it too. Skips without the packages.

    Args:
        name: str.
        monkeypatch: pytest's fixture; the variables are set until its end.
    """
    pytest.importorskip("s3fs", reason="the extra `object_stores`")
    servers = pytest.importorskip("moto.server", reason="moto[server]")
    boto3 = pytest.importorskip("boto3")

    made = servers.ThreadedMotoServer(port=0)
    made.start()
    try:
        host, port = made.get_host_and_port()
        url = f"http://{host}:{port}"
        # All servers of a process have the same buckets.
        urllib.request.urlopen(f"{url}/moto-api/reset", b"").close()
        monkeypatch.setenv("AWS_ENDPOINT_URL", url)
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", "test")
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        client = boto3.client("s3", region_name="us-east-1")
        client.create_bucket(Bucket=name)
        yield client
    finally:
        made.stop()
