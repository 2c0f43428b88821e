"""The wheel, built and tried in environments that have nothing of this checkout."""

import os
import shutil
import subprocess
import sysconfig
from pathlib import Path

ROOT = Path(__file__).parents[2]
UV = Path(sysconfig.get_path("scripts")) / "uv"

_MAKE_PIECES = """
from grafp.audio import encode, synthesis
from grafp.storage import write
for number in range(2):
    write(f"music/{number}.flac", encode(synthesis.piece(number, 12.0), "flac"))
write("clips/clip.wav", encode(synthesis.piece(1, 12.0)[40_000:88_000], "wav"))
"""
_SHOW_ANSWER = """
from pyarrow.parquet import read_table
[row] = read_table("answers/matches.parquet").to_pylist()
print(row["matched"], row["track"].rpartition("/")[2], round(row["track_start_s"], 1))
"""


def build(folder: Path) -> Path:
    """The wheel, built from a copy in a folder, since setuptools leaves its files in the tree."""
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("grafp", "pipelines"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    run(UV, "build", "--quiet", "--wheel", "--out-dir", folder / "dist", cwd=folder)
    [built] = (folder / "dist").glob("*.whl")
    return built


def run(*command: str | Path, cwd: Path, **env: str) -> str:
    """What a command prints, without the variables that lead back to this checkout."""
    ours = ("PYTHON", "RAY_", "GRAFP_", "VIRTUAL_ENV")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    done = subprocess.run(command, cwd=cwd, env=kept | env, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def identify_a_clip(environment: Path, folder: Path, *, index_workers: int = 0) -> None:
    """Index two pieces and query one, with no program on PATH but those of the environment.

    The index job runs over Ray if it has workers.
    """
    bin_ = environment / "bin"
    run(bin_ / "python", "-c", _MAKE_PIECES, cwd=folder)
    for workers, words in (
        (index_workers, ("index", "--audio", "music", "--catalog", "catalog")),
        (0, ("query", "--catalog", "catalog", "--queries", "clips", "--out", "answers")),
    ):
        run(bin_ / "grafp", *words, "--workers", str(workers), cwd=folder, PATH=str(bin_))
    assert run(bin_ / "python", "-c", _SHOW_ANSWER, cwd=folder).split() == ["True", "1.flac", "2.5"]
