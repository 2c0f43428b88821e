"""The wheel by itself: what is in it, and what works without the extras."""

import os
import shutil
import subprocess
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
UV = Path(sysconfig.get_path("scripts")) / "uv"

LOAD_AND_LOCATE = """
import numpy as np
import grafp
samples = np.random.default_rng(0).normal(0, 0.1, 32_000).astype(np.float32)
fingerprints = grafp.load_model().fingerprint(samples)
location = grafp.locate(fingerprints, fingerprints)
assert location.start_s < 0.1
print(grafp.__file__)
"""


def run(*command: str | Path, cwd: Path) -> str:
    env = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(command, cwd=cwd, env=env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, since setuptools leaves its files in the tree."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("grafp", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


@pytest.mark.slow
def test_all_files_of_both_packages_are_in_it(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        inside = {name for name in archive.namelist() if ".dist-info/" not in name}
    files = [path for name in ("grafp", "pipelines") for path in (ROOT / name).rglob("*")]
    assert inside == {
        path.relative_to(ROOT).as_posix()
        for path in files
        if path.is_file() and "__pycache__" not in path.parts
    }


@pytest.mark.slow
def test_a_model_loads_and_locates_without_faiss(wheel: Path, tmp_path: Path) -> None:
    """In a new environment that has the wheel, and the packages of this one except FAISS.

    To install all packages anew would take minutes and 5 GB. They are on the path after the
    wheel, without this checkout's editable install, and `import faiss` fails as if it were not
    there.
    """
    environment = tmp_path / "venv"
    run(UV, "venv", "--quiet", "--python", sys.executable, environment, cwd=tmp_path)
    python = environment / "bin" / "python"
    run(UV, "pip", "install", "--quiet", "--no-deps", "--python", python, wheel, cwd=tmp_path)
    [packages] = environment.glob("lib/python*/site-packages")
    (packages / "others.pth").write_text(sysconfig.get_path("purelib") + "\n")
    (packages / "faiss.py").write_text("raise ModuleNotFoundError('faiss is not installed')\n")
    module = run(python, "-c", LOAD_AND_LOCATE, cwd=tmp_path)
    assert Path(module.strip()).is_relative_to(environment)
