"""What the flows ask of machines, and how long they wait for it.

A local Ray has one machine. A cluster may start machines when they are asked for, which takes
minutes, and spot machines may not come at all. Flows wait GRAFP_WAIT_SECONDS (600) for what they
need, log that they wait, and then go on with less or exit with an error message.
"""

import logging
import math
import os
import time

import ray
import ray.data
from ray.util.placement_group import placement_group, remove_placement_group

from grafp.errors import OptionError

logger = logging.getLogger(__name__)

Bundle = dict[str, float]
_PART_OF_A_CPU = 0.5
"""What an encoder reserves: a pool that took every CPU would leave none to feed it."""
_SAY_EVERY = 30.0
_NODE_TYPE = "ray.io/node-group"  # a label that Ray gives


def on_a_cluster() -> bool:
    """Whether Ray was there before (`ray job submit` sets the variable) or was started here."""
    return bool(os.environ.get("RAY_ADDRESS"))


def wait_seconds() -> float:
    """How long to wait for machines. Raises OptionError when the variable is not a number."""
    text = os.environ.get("GRAFP_WAIT_SECONDS", "600")
    try:
        value = float(text)
    except ValueError:
        value = -1.0
    if not 0 <= value < float("inf"):
        raise OptionError(f"GRAFP_WAIT_SECONDS={text!r} is not a number of seconds, such as 600")
    return value


def available(bundles: list[Bundle], what: str) -> bool:
    """Whether there is room for all bundles at once, if need be after waiting for machines.

    On a cluster the bundles are asked for, which makes an autoscaler start machines, and given
    back once they are there.
    """
    if not on_a_cluster():
        return _fits(bundles)
    group = placement_group(bundles)
    started, said = time.monotonic(), -_SAY_EVERY
    try:
        while not group.wait(timeout_seconds=1):
            waited = time.monotonic() - started
            if waited - said > _SAY_EVERY:
                said = waited
                logger.info(f"  waiting for {what}; the cluster has {what_there_is()}")
            if waited > wait_seconds():
                return False
        return True
    finally:
        remove_placement_group(group)


def _fits(bundles: list[Bundle]) -> bool:
    there = ray.cluster_resources()
    names = {name for bundle in bundles for name in bundle}
    return all(sum(b.get(name, 0.0) for b in bundles) <= there.get(name, 0.0) for name in names)


def what_there_is() -> str:
    """The cluster's CPUs, GPUs and memory, for a person."""
    there = ray.cluster_resources()
    memory = there.get("memory", 0.0) / 2**30
    return f"{there.get('CPU', 0):g} CPUs, {there.get('GPU', 0):g} GPUs, {memory:.1f} GiB"


def machines() -> list[Bundle]:
    """What each machine that takes work has; a head without CPUs takes none."""
    alive = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    return [resources for resources in alive if resources.get("CPU", 0.0) > 0]


def kinds_of_machines() -> list[str]:
    """Of each machine that takes work: its node type, or what it has where Ray does not say."""
    kinds = []
    for node in ray.nodes():
        has = node["Resources"]
        if node["Alive"] and has.get("CPU", 0.0) > 0:
            gpus = f", {has['GPU']:g} GPUs" if has.get("GPU") else ""
            kinds.append(node["Labels"].get(_NODE_TYPE, f"{has['CPU']:g} CPUs{gpus}"))
    return kinds


def memory_claim(wanted: float) -> float:
    """Bytes of memory that a task may claim: no more than half a machine.

    A claim that no machine can meet would wait for ever; one that is too low runs all the same.
    Machines may all be gone between two stages: then it is the whole claim.
    """
    there = [machine.get("memory", 0.0) for machine in machines()]
    return min(wanted, max(there) / 2) if there else wanted


def gpu_is_free() -> bool:
    """Whether a task that can do without a GPU should ask for one: it would not have to wait."""
    return ray.available_resources().get("GPU", 0.0) >= 1


def gpu_share() -> float:
    """Of this machine's GPUs for each of as many tasks as it has CPUs; 0 when that is too little.

    Each task takes some hundred MB of a GPU, so that eight share one at most. On a cluster it is 0:
    machines with GPUs would be started for what others do as well.
    """
    there = ray.cluster_resources()
    share = there.get("GPU", 0.0) / max(1.0, there.get("CPU", 1.0))
    return 0.0 if on_a_cluster() or share < 1 / 8 else min(1.0, math.floor(1000 * share) / 1000)


def encoder_pool(most: int | None, gpu: bool | None, least: int = 1) -> dict[str, object]:
    """Arguments of a Ray Data stage of encoder actors: each has a GPU, or a part of a CPU.

    On a cluster the pool grows with the machines that an autoscaler adds, which Ray Data asks for
    while the stage has work; on this machine there is an encoder for each GPU or CPU.

    For the arguments see `pipelines.common.work.Encoders`. Raises OptionError when GPUs are asked
    for on a machine without.
    """
    there = ray.cluster_resources()
    gpus = int(there.get("GPU", 0)) if gpu is not False else 0
    if gpu and not gpus:
        if not on_a_cluster():
            raise OptionError("--gpu: this machine has no GPU that Ray sees; leave it out")
        gpus = int(available([{"GPU": 1}], "a GPU"))
        if not gpus:
            logger.info(f"no GPU came within {wait_seconds():g} s: encoding on CPUs")
    if most is None and not on_a_cluster():
        most = gpus or max(1, int(there.get("CPU", 1)))
    need = {"num_gpus": 1} if gpus else {"num_cpus": _PART_OF_A_CPU}
    return {"compute": ray.data.ActorPoolStrategy(min_size=least, max_size=most), **need}
