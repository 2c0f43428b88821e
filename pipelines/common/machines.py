"""Which machines a run has: they come and go on a cluster with an autoscaler."""

import logging
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from pipelines.common.work import connect, is_here

logger = logging.getLogger(__name__)
_LOOK_EVERY = 2.0  # seconds


class Machines:
    """Counts the seconds of the machines that take work, by kind, and logs their number."""

    def __init__(self) -> None:
        self._seconds: defaultdict[str, float] = defaultdict(float)
        self._now: Counter[str] = Counter()
        self.core_seconds = 0.0
        """CPUs of all machines, times how long these were there."""
        self._cores = 0.0
        self._looked = time.monotonic()

    @property
    def seconds(self) -> dict[str, int]:
        """Of all machines of a kind together; none where the work is done in this process."""
        return {kind: round(value) for kind, value in sorted(self._seconds.items())}

    def look(self) -> None:
        from pipelines.common import placement

        now, there = time.monotonic(), Counter(placement.kinds_of_machines())
        self.core_seconds += self._cores * (now - self._looked)
        self._cores = sum(machine["CPU"] for machine in placement.machines())
        for kind, count in self._now.items():
            self._seconds[kind] += count * (now - self._looked)
        if there != self._now and placement.on_a_cluster():
            told = ", ".join(f"{count} of {kind}" for kind, count in sorted(there.items()))
            logger.info(f"  machines: {told or 'none'}")
        self._now, self._looked = there, now


@contextmanager
def connected() -> Iterator[Machines]:
    """Join Ray, unless work is done here, and look at its machines now and then.

    Raises ClusterError.
    """
    connect()
    machines, done = Machines(), threading.Event()
    if is_here():
        yield machines
        return

    def look() -> None:
        with suppress(Exception):  # Ray's own, when the head is gone: the run itself tells
            machines.look()

    def keep_looking() -> None:
        while not done.wait(_LOOK_EVERY):
            look()

    look()
    thread = threading.Thread(target=keep_looking, daemon=True)
    thread.start()
    try:
        yield machines
    finally:
        done.set()
        thread.join(_LOOK_EVERY)
        look()
