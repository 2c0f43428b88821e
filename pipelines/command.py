"""The command `grafp`: one name for all jobs, with the options of `jobs/*.py`."""

import ast
import contextlib
import difflib
import importlib.metadata
import os
import platform
import shlex
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

from grafp.options import BAD_ARGUMENTS, build_parser, refuse

COMMANDS = {
    "demo": "pipelines.jobs.demo",
    "index": "pipelines.jobs.index_catalog",
    "query": "pipelines.jobs.query_batch",
    "merge": "pipelines.jobs.merge_index",
    "evaluate": "pipelines.jobs.evaluate",
    "train": "pipelines.jobs.train",
    "reproduce": "pipelines.jobs.reproduce",
    "plan": "grafp.plan",
}
SHELLS = ("bash", "zsh", "fish")
_SWITCHES = {
    "--help": "Show this text; `grafp COMMAND --help` explains a command",
    "--version": "Show the versions of grafp, Python, PyTorch and FAISS",
    "--completion": f"Print the completion script of a shell: {', '.join(SHELLS)}",
}
_PATHS = ("URI", "NAME|URI", "FOLDER", "FILE", "CSV")
"""Kinds of values, as the help names them, that can be paths."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command; the exit codes are those of the jobs."""
    words = list(sys.argv[1:] if arguments is None else arguments)
    match words:
        case []:
            print(_help(), file=sys.stderr)
            return BAD_ARGUMENTS
        case ["-h" | "--help", *_]:
            with _for_a_reader():
                print(_help())
        case ["--version", *_]:
            with _for_a_reader():
                print(_versions())
        case ["--completion", *rest]:
            if len(rest) != 1 or rest[0] not in SHELLS:
                given = " ".join(["--completion", *rest])
                refuse(f"{given}: give one of {', '.join(SHELLS)}")
            with _for_a_reader():
                print(_completion(rest[0]))
        case [name, *rest] if name in COMMANDS:
            return _run(name, rest)
        case [name, *_]:
            near = difflib.get_close_matches(name, (*COMMANDS, *_SWITCHES), 1, cutoff=0.5)
            hint = f"did you mean {near[0]}? " if near else ""
            refuse(f"{shlex.quote(name)}: no such command; {hint}`grafp --help` lists all")
    return 0


def _run(name: str, words: list[str]) -> int:
    job = import_module(COMMANDS[name])
    if name == "plan":  # part of the library, which has no jobs
        with _for_a_reader():
            code: int = job.main(words, prog="grafp plan")
        return code
    from pipelines.common import cli

    with _for_a_reader():
        options = job.options(words, prog=f"grafp {name}")
    return cli.run(job.main, options)


@contextlib.contextmanager
def _for_a_reader() -> Iterator[None]:
    """A reader that leaves early, as `head` does, is no error."""
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # Python flushes once more
        sys.exit(0)


def _versions() -> str:
    """Without an import, which would take seconds."""
    told = [f"grafp {importlib.metadata.version('grafp')}", f"Python {platform.python_version()}"]
    for package in ("torch", "faiss-cpu", "faiss-gpu"):
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            told.append(f"{package} {importlib.metadata.version(package)}")
    return ", ".join(told)


def _help() -> str:
    rows = {name: _summary(module) for name, module in COMMANDS.items()}
    width = max(map(len, (*rows, *_SWITCHES))) + 2
    commands, switches = (
        "\n".join(f"  {name:{width}}{text}" for name, text in part.items())
        for part in (rows, _SWITCHES)
    )
    return (
        "Identify recorded music at catalog scale.\n\nusage: grafp COMMAND [options]\n\n"
        f"commands:\n{commands}\n\noptions:\n{switches}"
    )


def _summary(module: str) -> str:
    """The first line of a module's docstring, read without its imports, which take a second."""
    spec = find_spec(module)
    assert spec
    assert spec.origin
    text = ast.get_docstring(ast.parse(Path(spec.origin).read_text(encoding="utf-8"))) or ""
    return text.partition("\n")[0].rstrip(".")


def _completion(shell: str) -> str:
    """A script that completes commands, options, their choices and paths."""
    import argparse

    import shtab

    top = argparse.ArgumentParser("grafp", add_help=False)
    top.add_argument("--help", help=_SWITCHES["--help"], action="store_true")
    top.add_argument("--version", help=_SWITCHES["--version"], action="store_true")
    top.add_argument("--completion", help=_SWITCHES["--completion"], choices=SHELLS)
    commands = top.add_subparsers()
    for name, module in COMMANDS.items():
        job = import_module(module)
        one = build_parser(job.Case if name == "plan" else job.Options, None)
        for action in one._actions:
            metavar = str(action.metavar)
            if metavar.startswith("{"):
                action.choices = metavar.strip("{}").split(",")
            elif metavar in _PATHS:
                action.complete = shtab.FILE  # type: ignore[attr-defined]
        commands.add_parser(name, help=_summary(module), parents=[one], add_help=False)
    return str(shtab.complete(top, shell))
