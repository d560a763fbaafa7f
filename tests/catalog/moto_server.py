"""S3 on loopback: moto's server and a bucket in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest

S3_URL = "s3://rig"


@contextmanager
def running_s3() -> Iterator[str]:
    """Start the server, point the environment at it, and answer the bucket's address."""
    import boto3
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    wanted = {
        "AWS_ENDPOINT_URL": f"http://{host}:{port}",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    with pytest.MonkeyPatch.context() as patch:
        for name, value in wanted.items():
            patch.setenv(name, value)
        _forget_connections()
        boto3.client("s3").create_bucket(Bucket=S3_URL.removeprefix("s3://"))
        yield S3_URL
    server.stop()
    _forget_connections()


def _forget_connections() -> None:
    """Drop the file systems that fsspec keeps: they would speak to the server before."""
    import fsspec

    fsspec.get_filesystem_class("s3").clear_instance_cache()
