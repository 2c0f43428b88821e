"""cluster.yaml and kuberay/: what Ray makes of them, and the jobs of their command lines."""

import importlib
import os
import re
import shlex
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
import yaml
from ray.autoscaler._private.kuberay.autoscaling_config import (
    _derive_autoscaling_config_from_ray_cr as read_by_ray,
)
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.autoscaler.v2.instance_manager.config import AutoscalingConfig
from ray.autoscaler.v2.scheduler import ResourceDemandScheduler, SchedulingRequest
from ray.autoscaler.v2.utils import ResourceRequestUtil

from grafp.index.size import ACTOR_BYTES, MAX_SHARD_FINGERPRINTS, populate_bytes
from grafp.plan import Case, plan

ROOT = Path(__file__).parents[2]
LAUNCHER = ROOT / "cluster.yaml"
MANIFESTS = sorted((ROOT / "kuberay").glob("*.yaml"))
FILES = [LAUNCHER, *sorted((ROOT / "kuberay").iterdir())]
RAY_JOBS = ["evaluate", "index", "merge", "query", "train"]


def _load(path: Path) -> dict:
    return yaml.safe_load(path.read_text())


def _manifest(name: str) -> dict:
    return _load(ROOT / "kuberay" / f"{name}.yaml")


def _autoscaling(where: str) -> AutoscalingConfig:
    """The configuration as the autoscaler on the head has it."""
    if where == "launcher":
        return AutoscalingConfig(_load(LAUNCHER), skip_content_hash=True)
    cluster = _manifest("raycluster")
    cluster["metadata"]["namespace"] = "default"
    return AutoscalingConfig(read_by_ray(cluster), skip_content_hash=True)


def _started(where: str, request: dict[str, float], count: int) -> dict[str, int]:
    """Which machines Ray's autoscaler starts for so many tasks on an idle cluster."""
    config = _autoscaling(where)
    requests = [ResourceRequestUtil.make(request)] * count
    reply = ResourceDemandScheduler(None).schedule(
        SchedulingRequest(
            disable_launch_config_check=True,
            node_type_configs=config.get_node_type_configs(),
            max_num_nodes=config.get_max_num_nodes(),
            resource_requests=ResourceRequestUtil.group_by_count(requests),
        )
    )
    return {launch.instance_type: launch.count for launch in reply.to_launch}


def _pods(manifest: dict) -> list[dict]:
    spec = manifest["spec"]
    if manifest["kind"] == "CronJob":
        return [spec["jobTemplate"]["spec"]["template"]["spec"]]
    groups = [spec["headGroupSpec"], *spec["workerGroupSpecs"]]
    return [group["template"]["spec"] for group in groups]


def _nightly() -> str:
    return _pods(_manifest("nightly"))[0]["containers"][0]["args"][0]


def test_the_launchers_file_is_what_ray_expects() -> None:
    validate_config(prepare_config(_load(LAUNCHER)))


@pytest.mark.parametrize("where", ["launcher", "kuberay"])
@pytest.mark.parametrize(
    ("request_", "count", "group"),
    [
        ({"CPU": 0.25}, 64, "cpu"),  # decoding
        ({"CPU": 0.5}, 16, "cpu"),  # encoding
        ({"GPU": 1}, 1, "gpu"),
        ({"CPU": 1, "GPU": 1}, 2, "gpu"),  # training
        ({"CPU": 1, "memory": populate_bytes(MAX_SHARD_FINGERPRINTS)}, 7, "memory"),
        ({"CPU": 0.01, "memory": ACTOR_BYTES}, 1, "memory"),  # search
        ({"CPU": 0.01, "memory": ACTOR_BYTES}, 5, "memory"),
    ],
)
def test_every_stage_starts_the_machines_that_are_meant_for_it(
    where: str, request_: dict, count: int, group: str
) -> None:
    assert set(_started(where, request_, count)) == {group}


@pytest.mark.parametrize(("where", "head"), [("launcher", "head"), ("kuberay", "headgroup")])
def test_no_work_is_placed_on_the_head_and_none_starts_more_than_allowed(
    where: str, head: str
) -> None:
    config = _autoscaling(where)
    types = config.get_node_type_configs()
    assert not any(types[head].resources.values())
    assert all(t.min_worker_nodes == 0 for t in types.values())
    many = _started(where, {"CPU": 1}, 1000)
    assert all(count <= types[group].max_worker_nodes for group, count in many.items())
    assert many["cpu"] == types["cpu"].max_worker_nodes
    assert sum(many.values()) <= config.get_max_num_worker_nodes()


def test_machines_at_full_price_are_for_what_spot_machines_cannot_hold() -> None:
    assert _started("launcher", {"GPU": 1}, 2) == {"gpu": 2}
    assert _started("launcher", {"GPU": 1}, 3) == {"gpu": 2, "gpu-on-demand": 1}
    types = _load(LAUNCHER)["available_node_types"]
    assert types["gpu"]["node_config"]["InstanceMarketOptions"] == {"MarketType": "spot"}
    assert "InstanceMarketOptions" not in types["gpu-on-demand"]["node_config"]


def test_machines_with_a_gpu_get_the_faiss_for_it_and_no_others() -> None:
    config = _load(LAUNCHER)
    for name, group in config["available_node_types"].items():
        commands = group.get("worker_setup_commands", config["setup_commands"])
        made = [re.findall(r"make -C ~/grafp env FAISS=(\w+)", command) for command in commands]
        wanted = "gpu" if group["resources"].get("GPU") else "cpu"
        assert [faiss for found in made for faiss in found] == [wanted], name
    assert "\nARG FAISS=cpu\n" in (ROOT / "kuberay" / "Dockerfile").read_text()
    assert " make env FAISS=$FAISS " in (ROOT / "kuberay" / "Dockerfile").read_text()


def test_both_kinds_of_faiss_are_pinned_at_one_version() -> None:
    pins = re.findall(r"^(faiss-\w+)==([\d.]+)", (ROOT / "constraints.txt").read_text(), re.M)
    assert [name for name, _ in pins] == ["faiss-cpu", "faiss-gpu"]
    assert len({version for _, version in pins}) == 1


class _Metadata(BaseHTTPRequestHandler):
    """AWS's instance metadata: no notice when first asked, and none without a token."""

    asked = 0

    def do_PUT(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"a-token")

    def do_GET(self) -> None:
        notice = self.path.endswith("/latest/meta-data/spot/instance-action")
        type(self).asked += 1
        known = self.headers["X-aws-ec2-metadata-token"] == "a-token"
        self.send_response(200 if notice and known and self.asked > 1 else 404)
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def metadata() -> Iterator[str]:
    server = HTTPServer(("127.0.0.1", 0), _Metadata)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


@pytest.mark.skipif(not shutil.which("curl"), reason="the machines that wait for it have curl")
def test_a_spot_notice_is_passed_on_to_ray(metadata: str, tmp_path: Path) -> None:
    command = _load(LAUNCHER)["available_node_types"]["gpu"]["worker_setup_commands"][-1]
    detached, loop = shlex.split(command)[:4], shlex.split(command)[4]
    assert detached == ["setsid", "-f", "sh", "-c"]
    fake = tmp_path / "ray"
    fake.write_text(f'#!/bin/sh\necho "$@" > {tmp_path}/asked\n')
    fake.chmod(0o755)
    loop = loop.replace("169.254.169.254", metadata).replace("sleep 5", "sleep 0.01")
    path = f"{tmp_path}:{os.environ['PATH']}"
    subprocess.run(["sh", "-c", loop], env={"PATH": path}, timeout=20, check=True)
    assert _Metadata.asked == 2
    assert (tmp_path / "asked").read_text().startswith("drain-node --reason DRAIN_NODE_REASON_PREE")


def test_every_job_has_a_manifest_of_a_known_kind() -> None:
    kinds = {path.stem: (m["apiVersion"], m["kind"]) for path in MANIFESTS for m in [_load(path)]}
    assert kinds == {
        "raycluster": ("ray.io/v1", "RayCluster"),
        "nightly": ("batch/v1", "CronJob"),
        **dict.fromkeys(RAY_JOBS, ("ray.io/v1", "RayJob")),
    }


@pytest.mark.parametrize("name", [*RAY_JOBS, "nightly"])
def test_jobs_accept_the_command_lines_of_their_manifests(name: str) -> None:
    if name == "nightly":  # index, then clean up
        lines = [part.partition(" -- ")[2] for part in _nightly().split("&&")]
    else:
        lines = [_manifest(name)["spec"]["entrypoint"]]
    for line, prefix in zip(lines, ("index", "merge") if name == "nightly" else (name,)):
        command = shlex.split(line)
        assert command[0] == "python"
        job = ROOT / Path(command[1]).relative_to("/grafp")  # where the image has the repository
        assert job.stem.startswith(prefix)
        places = [word for word in command[2:] if "/" in word]
        assert places
        assert all(place.startswith("s3://bucket/") for place in places)
        importlib.import_module(f"pipelines.jobs.{job.stem}").options(
            command[2:]
        )  # ends the test if it refuses


@pytest.mark.parametrize("name", RAY_JOBS)
def test_a_job_runs_once_on_the_cluster_that_is_there(name: str) -> None:
    spec = _manifest(name)["spec"]
    assert spec["clusterSelector"] == {
        "ray.io/cluster": _manifest("raycluster")["metadata"]["name"]
    }
    # KubeRay refuses more retries than none, or deletes the cluster before the next one.
    assert spec["backoffLimit"] == 0
    assert not {"rayClusterSpec", "shutdownAfterJobFinishes", "suspend"} & set(spec)


def test_a_night_is_submitted_once_and_with_the_clusters_own_token() -> None:
    cron, cluster = _manifest("nightly")["spec"], _manifest("raycluster")
    assert cron["concurrencyPolicy"] == "Forbid"
    assert cron["jobTemplate"]["spec"]["backoffLimit"] == 0
    assert "--submission-id index-$(date -u +%F) " in _nightly()
    name = cluster["metadata"]["name"]
    assert f"--address http://{name}-head-svc:8265 " in _nightly()
    assert cluster["spec"]["authOptions"] == {"mode": "token"}
    env = {item["name"]: item for item in _pods(_manifest("nightly"))[0]["containers"][0]["env"]}
    assert env["RAY_AUTH_MODE"]["value"] == "token"
    secret = {"name": name, "key": "auth_token"}
    assert env["RAY_AUTH_TOKEN"]["valueFrom"] == {"secretKeyRef": secret}


def test_the_image_and_the_versions_are_the_same_everywhere() -> None:
    version = re.search(r'^version = "(.+)"', (ROOT / "pyproject.toml").read_text(), re.M)
    ray = re.search(r"^ray==(.+)$", (ROOT / "constraints.txt").read_text(), re.M)
    assert version
    assert ray
    image = f"grafp:{version[1]}"
    recipe = (ROOT / "kuberay" / "Dockerfile").read_text()
    assert f"-t {image} .\n" in recipe
    assert f"-t {image}-gpu --build-arg FAISS=gpu .\n" in recipe
    pods = [*_pods(_manifest("raycluster")), *_pods(_manifest("nightly"))]
    containers = [container for pod in pods for container in pod["containers"]]
    assert len(containers) == 5
    for container in containers:
        on_gpu = "nvidia.com/gpu" in container["resources"]["limits"]
        assert container["image"] == (f"{image}-gpu" if on_gpu else image)
    assert all(c["resources"]["limits"] == c["resources"]["requests"] for c in containers)
    assert _manifest("raycluster")["spec"]["rayVersion"] == ray[1]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_nothing_secret_is_written_down(path: Path) -> None:
    text = path.read_text()
    keys = (
        r"\b(AKIA|ASIA)[0-9A-Z]{16}\b|\b[0-9a-fA-F]{32,}\b|\b\d{12}\b"  # ... or an account number
    )
    assert not re.search(keys, text)
    named = r"(?i)(secret_access_key|access_key_id|session_token|auth_token|password)\w*[\"']?"
    assert not re.search(named + r"\s*[:=]\s*[\"']?\w", text)
    assert not re.search(named + r",\s*value:", text)


@pytest.mark.parametrize("path", [LAUNCHER, ROOT / "kuberay" / "raycluster.yaml"])
def test_disks_hold_the_catalog_that_the_files_name(path: Path) -> None:
    text = " ".join(path.read_text().replace("#", " ").split())
    [(tracks, minutes)] = re.findall(
        r"fingerprints of ([\d,]+) recordings of ([\d.]+) minutes", text
    )
    planned = plan(Case(tracks=int(tracks.replace(",", "")), minutes=float(minutes)))
    assert planned.query_nodes["with vectors on disk"] == 2
    if path == LAUNCHER:
        kind = _load(path)["available_node_types"]["memory"]
        assert kind["max_workers"] >= 2
        [disk] = kind["node_config"]["BlockDeviceMappings"]
        assert disk["Ebs"]["VolumeSize"] == Case.node_disk_gb
        assert disk["Ebs"]["VolumeSize"] >= planned.query_disk_gb["of each node"]
        return
    [group] = [g for g in _load(path)["spec"]["workerGroupSpecs"] if g["groupName"] == "memory"]
    assert group["maxReplicas"] >= 2
    pod = group["template"]["spec"]
    [volume] = pod["volumes"]
    claim = volume["ephemeral"]["volumeClaimTemplate"]["spec"]["resources"]["requests"]
    gb = int(claim["storage"].removesuffix("Gi")) * 2**30 / 1e9
    assert gb >= planned.query_disk_gb["of each node"]
    [mounted] = pod["containers"][0]["volumeMounts"]
    assert mounted == {"name": volume["name"], "mountPath": "/tmp"}  # TMPDIR, and where Ray spills
