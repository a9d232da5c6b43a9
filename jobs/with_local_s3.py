"""Runs a command against an S3 server of its own on loopback, and ends the server with it.

``python jobs/with_local_s3.py --bucket caravela -- python jobs/pipeline.py --config … --set root=s3://caravela/demo``

The command finds endpoint and credentials in the standard AWS environment variables, as with any S3. The server is
moto's, in its own process; it keeps objects in memory, so they are gone when the command ends: their list is printed.
"""

import argparse
import os
import socket
import subprocess
import sys
import time
from collections.abc import Sequence

import boto3
from botocore.exceptions import BotoCoreError, ClientError

START_TIMEOUT_S = 30


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the command's exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bucket", default="caravela", help="bucket to make before the command starts")
    parser.add_argument("command", nargs=argparse.REMAINDER, help="-- and the command")
    options = parser.parse_args(argv)
    command = options.command[1:] if options.command[:1] == ["--"] else options.command
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    endpoint = {
        "AWS_ENDPOINT_URL": f"http://127.0.0.1:{port}",
        "AWS_ACCESS_KEY_ID": "local",
        "AWS_SECRET_ACCESS_KEY": "local",
        "AWS_DEFAULT_REGION": "us-east-1",
    }
    os.environ.update(endpoint)
    server = subprocess.Popen(
        [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        client = boto3.client("s3")
        _make_bucket(client, options.bucket, server)
        status = subprocess.run(command, check=False).returncode
        pages = client.get_paginator("list_objects_v2").paginate(Bucket=options.bucket)
        objects = [entry for page in pages for entry in page.get("Contents", [])]
        print(f"\n{len(objects)} objects in s3://{options.bucket}, {sum(o['Size'] for o in objects) / 1e6:.1f} MB:")
        for entry in objects:
            print(f"  {entry['Size']:>12,}  {entry['Key']}")
        return status
    except ClientError as error:
        print(f"error: --bucket {options.bucket}: {error}", file=sys.stderr)
        return 1
    finally:
        server.terminate()
        server.wait()


def _make_bucket(client: "boto3.client", bucket: str, server: "subprocess.Popen[bytes]") -> None:
    deadline = time.monotonic() + START_TIMEOUT_S
    while True:
        try:
            client.create_bucket(Bucket=bucket)
            return
        except BotoCoreError:  # the server is not up yet
            if time.monotonic() > deadline or server.poll() is not None:
                raise
            time.sleep(0.3)


if __name__ == "__main__":
    sys.exit(main())
