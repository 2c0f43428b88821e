"""The wheel by itself: what is in it, what works without the extras, and the command `grafp`."""

import json
import re
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest
import wheels

from pipelines.command import COMMANDS

pytestmark = pytest.mark.slow

LOAD_AND_LOCATE = """
import numpy as np
import grafp
samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
fingerprints = grafp.load_model().fingerprint(samples)
location = grafp.locate(fingerprints, fingerprints)
assert location.start_s < 0.1
print(grafp.__file__)
"""


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheels.build(tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def environment(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A new environment that has the wheel, and the packages of this one.

    To install all packages anew would take minutes and 5 GB (`make matrix` does). They are on the
    path after the wheel, without this checkout's editable install.
    """
    environment = tmp_path_factory.mktemp("environment") / "venv"
    python = environment / "bin" / "python"
    uv, cwd = wheels.UV, wheel.parent
    wheels.run(uv, "venv", "--quiet", "--python", sys.executable, environment, cwd=cwd)
    wheels.run(uv, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel, cwd=cwd)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return environment


def test_all_files_of_both_packages_are_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for name in ("grafp", "pipelines") for path in (wheels.ROOT / name).rglob("*")]
    assert inside == {
        path.relative_to(wheels.ROOT).as_posix()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }


def test_a_model_loads_and_locates_without_faiss(environment: Path, tmp_path: Path) -> None:
    """`import faiss` fails as if it were not there."""
    (tmp_path / "faiss.py").write_text("raise ModuleNotFoundError('faiss is not installed')\n")
    python = environment / "bin" / "python"
    module = wheels.run(
        python, "-c", LOAD_AND_LOCATE, cwd=tmp_path.parent, PYTHONPATH=str(tmp_path)
    )
    assert Path(module.strip()).is_relative_to(environment)


def test_the_command_identifies_a_clip(environment: Path, tmp_path: Path) -> None:
    wheels.identify_a_clip(environment, tmp_path)


def test_the_demo_needs_nothing_but_a_folder(environment: Path, tmp_path: Path) -> None:
    shown = wheels.run(
        environment / "bin" / "grafp", "demo", "--tracks", "4", "--clips", "4", cwd=tmp_path
    )
    assert [path.name for path in tmp_path.iterdir()] == ["demo-out"]
    assert (tmp_path / "demo-out/answers/report.html").is_file()
    summary = json.loads(shown.splitlines()[-1])
    assert (summary["tracks"], summary["queries"], summary["errors"]) == (3, 4, 0)


def test_the_command_tells_its_version_and_all_commands(environment: Path, tmp_path: Path) -> None:
    grafp = environment / "bin" / "grafp"
    version = re.escape(".".join(map(str, sys.version_info[:3])))
    shown = wheels.run(grafp, "--version", cwd=tmp_path)
    number = r"\d+\.\d+\.\d+\S*"
    packages = rf"torch {number}, faiss-[cg]pu {number}"
    assert re.fullmatch(rf"grafp {number}, Python {version}, {packages}\n", shown)
    listed = re.findall(r"^  (\w+) ", wheels.run(grafp, "--help", cwd=tmp_path), re.MULTILINE)
    assert listed == list(COMMANDS)


def test_bash_completes_with_the_script_of_the_command(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "songs").mkdir()
    grafp = environment / "bin" / "grafp"
    script = wheels.run(grafp, "--completion", "bash", cwd=tmp_path)
    (tmp_path / "completion.bash").write_text(script)

    def completed(*words: str) -> set[str]:
        """What the function that the script registers answers after these words."""
        ask = (
            'source ./completion.bash; function=$(complete -p grafp | grep -oP "(?<=-F )\\S+");'
            'COMP_WORDS=(grafp "$@"); COMP_CWORD=$#; $function; printf "%s\\n" "${COMPREPLY[@]}"'
        )
        command = ["bash", "--norc", "-c", ask, "bash", *words]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True)
        return set(done.stdout.split())

    assert completed("") == set(COMMANDS)
    assert completed("in") == {"index"}
    assert completed("index", "--cat") == {"--catalog"}
    assert completed("query", "--rerank", "") == {"exact", "pq"}
    assert completed("index", "--audio", "so") == {"songs"}
    assert completed("plan", "--tr") == {"--tracks"}
