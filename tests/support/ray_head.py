"""A Ray head that asks for a token, and `ray job submit` to it from another folder."""

import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from subprocess import CompletedProcess

ROOT = Path(__file__).parents[2]
RAY = str(Path(sys.executable).with_name("ray"))


@dataclass(frozen=True)
class Head:
    """A Ray head as a client in another folder sees it."""

    folder: Path
    gcs: str
    url: str

    def env(self, token: str = "token") -> dict[str, str]:
        changed = {"PATH": f"{Path(RAY).parent}:{os.environ['PATH']}", "RAY_AUTH_MODE": "token"}
        return {**os.environ, **changed, "RAY_AUTH_TOKEN_PATH": str(self.folder / token)}

    def ray_job(self, *arguments: str, token: str = "token") -> CompletedProcess[str]:
        command, rest = arguments[0], arguments[1:]
        return subprocess.run(
            [RAY, "job", command, "--address", self.url, *rest],
            env=self.env(token), cwd=self.folder, capture_output=True, text=True, timeout=300,
        )  # fmt: skip

    def submit(self, *job: str, name: str = "", wait: bool = True) -> CompletedProcess[str]:
        options = [f"--submission-id={name}"] if name else []
        options += [] if wait else ["--no-wait"]
        return self.ray_job("submit", "--working-dir", str(ROOT), *options, "--", *job)


@contextmanager
def running(folder: Path) -> Iterator[Head]:
    """A head whose clients work in `folder`, where their token is."""
    (folder / "token").write_text(secrets.token_hex(32))
    (folder / "wrong").write_text(secrets.token_hex(32))
    gcs, dashboard, agent = free_port(), free_port(), free_port()
    started = Head(folder, f"127.0.0.1:{gcs}", f"http://127.0.0.1:{dashboard}")
    command = [RAY, "start", "--head", "--block", f"--port={gcs}", f"--dashboard-port={dashboard}"]
    # The usual port of the agent may be that of another Ray in the tests.
    command += [f"--dashboard-agent-listen-port={agent}"]
    process = subprocess.Popen(
        [*command, "--num-cpus=2", "--node-ip-address=127.0.0.1"],
        env={**started.env(), "RAY_idle_worker_killing_time_threshold_ms": "60000"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        deadline = time.monotonic() + 90
        while started.ray_job("list").returncode:
            assert time.monotonic() < deadline
            assert process.poll() is None
            time.sleep(1)
        yield started
    finally:
        process.terminate()
        process.wait(60)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return listening.getsockname()[1]
