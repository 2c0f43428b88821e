"""Several real Ray nodes on this machine, and the death of one of them."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import psutil
from ray._private.node import Node
from ray.cluster_utils import Cluster
from ray_head import RAY, ROOT


class Nodes:
    """A head that does no work, and nodes that do."""

    def __init__(self, cpus: list[float], system: dict[str, object]) -> None:
        # As grafp sets it for a local Ray: nodes with one CPU end waiting workers at once.
        system = {"idle_worker_killing_time_threshold_ms": 60_000, **system}
        arguments = {"num_cpus": 0, "include_dashboard": False, "_system_config": system}
        self.cluster = Cluster(initialize_head=True, head_node_args=arguments)
        self.nodes = [self.cluster.add_node(num_cpus=count) for count in cpus]
        self.cluster.wait_for_nodes()

    def start(self, job: str, *arguments: object, **env: str) -> subprocess.Popen[str]:
        """A job on the cluster as a process of its own; errors are in its output."""
        return subprocess.Popen(
            [sys.executable, str(ROOT / "jobs" / job), *map(str, arguments)],
            env={**os.environ, "RAY_ADDRESS": self.cluster.address, **env},
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run(self, job: str, *arguments: object, **env: str) -> tuple[int, list[str]]:
        """A job to its end: exit code and lines."""
        process = self.start(job, *arguments, **env)
        output, _ = process.communicate(timeout=300)
        return process.returncode, output.splitlines()

    def node_at_work(self, title: str, job: subprocess.Popen[str]) -> Node:
        """Wait for the first node with a worker process of this title."""
        while job.poll() is None:
            for node in self.nodes:
                if any(title in name for name in _titles(node)):
                    return node
            time.sleep(0.01)
        raise AssertionError(f"the job ended without a worker {title}:\n{job.communicate()[0]}")

    def give_notice(self, node: Node) -> None:
        """As when the owner of a spot machine says that it will take it away."""
        options = {
            "address": self.cluster.address,
            "node-id": node.node_id,
            "reason": "DRAIN_NODE_REASON_PREEMPTION",
            "reason-message": "spot notice",
            "deadline-remaining-seconds": 120,
        }
        words = [f"--{name}={value}" for name, value in options.items()]
        subprocess.run([RAY, "drain-node", *words], check=True)

    def kill(self, node: Node) -> None:
        """As when a machine is taken away: all its processes at once, its files too."""
        self.cluster.remove_node(node, allow_graceful=False)
        self.nodes.remove(node)


def summary(lines: list[str]) -> dict:
    """A job's summary; what Ray says of its own actors on standard error may come after it."""
    return json.loads([line for line in lines if line.startswith("{")][-1])


def lines_until(text: str | None, job: subprocess.Popen[str]) -> list[str]:
    """What a job says up to a line with this text, or to its end."""
    assert job.stdout
    lines = []
    for line in job.stdout:
        lines.append(line.rstrip("\n"))
        if text and text in line:
            return lines
    assert not text, "\n".join(lines)
    job.stdout.close()
    job.wait(60)
    return lines


def _titles(node: Node) -> Iterator[str]:
    raylet = node.all_processes["raylet"][0].process.pid
    with suppress(psutil.Error):
        for worker in psutil.Process(raylet).children(recursive=True):
            with suppress(psutil.Error):
                yield " ".join(worker.cmdline())


@contextmanager
def running(cpus: list[float], system: dict[str, object] | None = None) -> Iterator[Nodes]:
    """Nodes with so many CPUs each; `system` is configuration of Ray's own."""
    nodes = Nodes(cpus, system or {})
    try:
        yield nodes
    finally:
        nodes.cluster.shutdown()
