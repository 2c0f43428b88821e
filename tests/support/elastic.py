"""A Ray cluster of this machine whose nodes are started and ended by Ray's own autoscaler."""

import json
import os
import secrets
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
from ray.autoscaler._private.fake_multi_node.node_provider import (
    FAKE_HEAD_NODE_ID,
    FakeMultiNodeProvider,
)
from ray.util import get_node_ip_address
from ray_head import RAY, ROOT, free_port

IDLE_MINUTES = 0.2
_UPDATE_SECONDS = "1"


@dataclass
class Elastic:
    """A head that does no work, and how to run jobs on its cluster."""

    address: str
    token: dict[str, str]

    def start(
        self, job: str, *arguments: object, root: Path = ROOT, **env: str
    ) -> subprocess.Popen[str]:
        """A job of a checkout on the cluster, as a process; errors are in its output."""
        return subprocess.Popen(
            [sys.executable, str(root / "jobs" / job), *map(str, arguments)],
            env={**os.environ, **self.token, "RAY_ADDRESS": self.address, **env},
            cwd=root,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def nodes(self) -> list[psutil.Process]:
        """The raylets of the nodes that the autoscaler started and did not end."""
        found = []
        for one in psutil.process_iter(["name", "cmdline"]):
            words = one.info["cmdline"] or []
            if one.info["name"] == "raylet" and f"--gcs-address={self.address}" in words:
                found += [] if "--head" in words else [one]
        return found

    def encoders(self) -> int:
        """Encoder actors on all nodes."""
        return sum("MapWorker" in title for node in self.nodes() for title in titles(node))


def titles(node: psutil.Process) -> Iterator[str]:
    """Of the processes of a node."""
    with suppress(psutil.Error):
        for worker in node.children(recursive=True):
            with suppress(psutil.Error):
                yield " ".join(worker.cmdline())


@contextmanager
def running(folder: Path, types: dict[str, dict], max_workers: int) -> Iterator[Elastic]:
    """A head without CPUs, and node types as in cluster.yaml; none is started.

    `ray.cluster_utils.AutoscalingCluster` is not used: its configuration is not in the package,
    and it ends every other Ray of the machine.
    """
    gcs, agent = free_port(), free_port()
    address = f"{get_node_ip_address()}:{gcs}"
    (folder / "token").write_text(secrets.token_hex(32))
    head_type = "ray.head.default"
    config = {
        "cluster_name": "elastic",
        "max_workers": max_workers,
        "provider": {
            "type": "external",
            "module": f"{FakeMultiNodeProvider.__module__}.{FakeMultiNodeProvider.__name__}",
            "gcs_address": address,
            "launch_multiple": True,
            "head_node_id": FAKE_HEAD_NODE_ID,
        },
        "available_node_types": {
            head_type: {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
            **{
                name: {"node_config": {}, "min_workers": 0, "max_workers": max_workers, **kind}
                for name, kind in types.items()
            },
        },
        "head_node_type": head_type,
        "upscaling_speed": 1.0,
        "idle_timeout_minutes": IDLE_MINUTES,
        "auth": {},
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "initialization_commands": [],
        "setup_commands": [],
        "head_setup_commands": [],
        "worker_setup_commands": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
    }
    path = folder / "autoscaler.json"
    path.write_text(json.dumps(config))
    command = [
        RAY, "start", "--head", "--block", f"--port={gcs}", "--num-cpus=0", "--memory=0",
        f"--dashboard-agent-listen-port={agent}", "--include-dashboard=false",
        f"--autoscaling-config={path}",
    ]  # fmt: skip
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    env = {
        **os.environ,
        **token,
        "AUTOSCALER_UPDATE_INTERVAL_S": _UPDATE_SECONDS,
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": FAKE_HEAD_NODE_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": FAKE_HEAD_NODE_ID,
        "RAY_idle_worker_killing_time_threshold_ms": "60000",
    }
    with (folder / "head.log").open("wb") as log:
        head = subprocess.Popen(command, env=env, stdout=log, stderr=subprocess.STDOUT)
    try:
        _wait_until_started(folder / "head.log", head)
        yield Elastic(address, token)
    finally:
        for one in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            with suppress(psutil.Error):
                one.kill()
        head.wait(60)


def _wait_until_started(log: Path, head: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 90
    while "Ray runtime started" not in log.read_text():
        assert time.monotonic() < deadline, log.read_text()
        assert head.poll() is None, log.read_text()
        time.sleep(0.5)
