"""docs/guide/operate.md: its commands, run in their order."""

import re
import subprocess
from pathlib import Path

import pytest
from ray_head import Head

from grafp import storage
from grafp.audio import encode, synthesis

ROOT = Path(__file__).parents[2]


@pytest.mark.slow
def test_the_guides_commands_work(s3: str, head: Head) -> None:
    for number in range(8):
        folder = "music" if number < 6 else "more"
        data = encode(synthesis.piece(number, 20.0), "wav")
        storage.write(f"{s3}/operations/{folder}/{number:03}.wav", data)
    blocks = re.findall(
        r"^```sh\n(.+?)^```", (ROOT / "docs/guide/operate.md").read_text(), re.M | re.S
    )
    assert len(blocks) == 9
    places = {"MUSIC": "music", "MORE_MUSIC": "more", "CATALOG": "catalog"}
    env = {
        **head.env(),
        **{name: f"{s3}/operations/{place}" for name, place in places.items()},
        "RAY_API_SERVER_ADDRESS": head.url,
    }
    refused = 'refused() { if "$@"; then return 1; fi; }\n'  # `! command` would not end the script
    commands = re.sub(r"^! ", "refused ", "\n".join(blocks), flags=re.MULTILINE)
    script = "set -ex -o pipefail\n" + refused + commands
    run = subprocess.run(
        ["bash", "-c", script], cwd=ROOT, env=env, capture_output=True, text=True, timeout=1800
    )
    assert run.returncode == 0, run.stdout[-5000:] + run.stderr[-5000:]
