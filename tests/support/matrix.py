"""Does `pip install grafp` work with every Python, on a machine without a compiler?

    make matrix

For each version that is on this machine: an environment from the wheel and from wheels only, in
which two pieces are indexed over Ray and a clip is identified without. The environment (5 GB) is
then deleted. A version is that of `make env`, or is looked for on PATH, by uv and by pyenv.
"""

import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import wheels

VERSIONS = ("3.11", "3.12", "3.13")


def main() -> int:
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        wheel = wheels.build(Path(folder))
        for version in VERSIONS:
            if (python := find(version)) is None:
                print(f"Python {version}: not on this machine, not tested", flush=True)
                continue
            started = time.monotonic()
            try:
                shown = install_and_try(wheel, python)
            except AssertionError as error:
                failed += 1
                shown = f"FAILED\n{error}"
            print(f"Python {version}: {shown} ({time.monotonic() - started:.0f} s)", flush=True)
    return 1 if failed else 0


def find(version: str) -> Path | None:
    """An interpreter of a version; the shims of pyenv may be there without what they stand for."""
    probe = "import sys; print('%d.%d' % sys.version_info[:2], sys.executable)"
    for candidate in _candidates(version):
        done = subprocess.run([candidate, "-c", probe], capture_output=True, text=True)
        found, _, path = done.stdout.strip().partition(" ")
        if found == version:
            return Path(path)
    return None


def _candidates(version: str) -> Iterator[str]:
    yield sys.executable
    if path := shutil.which(f"python{version}"):
        yield path
    asked = [str(wheels.UV), "python", "find", "--no-python-downloads", "--system", version]
    if path := _said(asked):
        yield path
    if shutil.which("pyenv") and (root := _said(["pyenv", "root"])):
        yield from map(str, sorted(Path(root).glob(f"versions/{version}.*/bin/python")))


def _said(command: list[str]) -> str:
    return subprocess.run(command, capture_output=True, text=True).stdout.strip()


def install_and_try(wheel: Path, python: Path) -> str:
    """What `grafp --version` says, after a clip was identified."""
    with tempfile.TemporaryDirectory() as folder:
        environment, work = Path(folder, "venv"), Path(folder, "work")
        work.mkdir()
        wheels.run(wheels.UV, "venv", "--quiet", "--python", python, environment, cwd=work)
        target = ("--python", environment / "bin" / "python", "--only-binary", ":all:")
        path = str(environment / "bin")  # where no compiler is
        wheels.run(
            wheels.UV, "pip", "install", "--quiet", *target, f"grafp[cpu] @ {wheel.as_uri()}",
            cwd=work, PATH=path,
        )  # fmt: skip
        assert not any(shutil.which(name, path=path) for name in ("cc", "gcc", "g++", "clang"))
        version = wheels.run(environment / "bin" / "grafp", "--version", cwd=work, PATH=path)
        wheels.identify_a_clip(environment, work, index_workers=1)
        packages = sum(1 for _ in environment.glob("lib/python*/site-packages/*.dist-info"))
    return f"{version.strip()}: {packages} packages, no compiler, Ray runs, a clip is identified"


if __name__ == "__main__":
    os.chdir(wheels.ROOT)
    sys.exit(main())
