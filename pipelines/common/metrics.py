"""A job's outcome as a file that Prometheus's node_exporter reads (textfile collector).

https://prometheus.io/docs/instrumenting/exposition_formats/
"""

import re
import time
from typing import Any

from grafp import storage

_LAST_SUCCESS = "grafp_last_success_timestamp_seconds"


def write_metrics(uri: str, job: str, summary: dict[str, Any], code: int, seconds: float) -> None:
    """Write what a job did, whole or not at all; a failed one keeps the time of the last success.

    Args:
        summary: its numbers become metrics; empty for a job that failed.
        code: the job's exit code.
        seconds: that it ran.

    Raises StorageError.
    """
    now = time.time()
    label = f'{{job="{job}"}}'
    values: dict[str, float] = {
        "grafp_exit_code": code,
        "grafp_finished_timestamp_seconds": round(now, 3),
        "grafp_duration_seconds": round(seconds, 3),
    }
    success = now if code == 0 else _last_success(uri, label)
    if success is not None:
        values[_LAST_SUCCESS] = round(success, 3)
    for name, value in summary.items():
        if isinstance(value, int | float) and not isinstance(value, bool):
            values[f"grafp_summary_{name}"] = value
    lines = [f"# TYPE {name} gauge\n{name}{label} {value}" for name, value in values.items()]
    storage.write(uri, ("\n".join(lines) + "\n").encode())


def _last_success(uri: str, label: str) -> float | None:
    if storage.stat(uri) is None:
        return None
    text = storage.read(uri).decode(errors="replace")
    found = re.search(rf"^{_LAST_SUCCESS}{re.escape(label)} (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else None
