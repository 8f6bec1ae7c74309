"""A real S3 API on the loopback interface, as a process of our own."""

import contextlib
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from pathlib import Path
from typing import Any, Self

import boto3

from servers import free_port, until


class Buckets:
    """An S3 server with one bucket, `features`; a context manager that ends it by its own process."""

    def __init__(self) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}"

    def __enter__(self) -> Self:
        self._log = tempfile.TemporaryFile()
        command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(self.port)]
        self.process = subprocess.Popen(command, stdout=self._log, stderr=self._log)
        until(self._answers, "the S3 server answers")
        self.client = boto3.client("s3", endpoint_url=self.url, region_name="us-east-1", **self._keys("aws_"))
        self.client.create_bucket(Bucket="features")
        return self

    def __exit__(self, *error: object) -> None:
        self.process.terminate()
        self.process.wait()
        self._log.close()

    def options(self) -> dict[str, str]:
        """What an `ObjectStore` has to be told."""
        return {
            "aws_endpoint_url": self.url,
            "aws_allow_http": "true",
            "aws_region": "us-east-1",
            **self._keys("aws_"),
        }

    def environment(self) -> dict[str, str]:
        """The same as variables of the environment."""
        return {name.upper(): value for name, value in self.options().items()}

    def put(self, path: Path, key: str) -> None:
        """Copies a file into the bucket."""
        self.client.upload_file(str(path), "features", key)

    def text(self, name: str) -> str:
        """What an object holds, as far as it is text."""
        body = self.client.get_object(Bucket="features", Key=name)["Body"].read()
        return str(body.decode(errors="replace"))

    def names(self) -> list[str]:
        """The names of all objects."""
        return [each["Key"] for each in self.client.list_objects_v2(Bucket="features").get("Contents", [])]

    @staticmethod
    def _keys(prefix: str) -> dict[str, Any]:
        return {f"{prefix}access_key_id": "AKIAS3CRET", f"{prefix}secret_access_key": "wJalrS3CRETKEY"}

    def _answers(self) -> bool:
        with contextlib.suppress(urllib.error.URLError, ConnectionError), urllib.request.urlopen(self.url, timeout=5):
            return True
        assert self.process.poll() is None, "the S3 server has ended"
        return False
