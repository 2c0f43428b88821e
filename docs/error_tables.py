"""Tables of all errors, read from the source: docs/reference/errors.md shows what this prints.

python docs/error_tables.py classes
python docs/error_tables.py messages
"""

import ast
import inspect
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from grafp import errors  # noqa: E402 - found in this tree, whatever is installed

CLASSES = {
    name: one
    for name, one in vars(errors).items()
    if inspect.isclass(one) and issubclass(one, errors.GrafpError)
}


@dataclass(frozen=True, order=True)
class Message:
    """What an error says; `...` stands for what is filled in."""

    error: str
    text: str
    module: str


@cache
def messages() -> list[Message]:
    """All messages of the library and the flows."""
    files = [path for name in ("grafp", "pipelines") for path in (ROOT / name).rglob("*.py")]
    return sorted({one for path in files for one in _of_file(path)})


def _of_file(path: Path) -> Iterator[Message]:
    module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Call) and node.args:
            name = ast.unparse(node.func).rpartition(".")[2]
            text = _text(node.args[0])
            if name in CLASSES and text.strip(". :"):
                yield Message(name, text, module)


def _text(node: ast.expr) -> str:
    """The words of a string that may have values in it; "..." of anything else."""
    match node:
        case ast.Constant(str(value)):
            return value
        case ast.JoinedStr(values):
            return "".join(map(_text, values))
        case ast.BinOp(left, ast.Add(), right):
            return _text(left) + _text(right)
    return "..."


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("`", "'").replace("\n", " ")


def classes_table() -> str:
    """Each class with what it is a kind of, its name in tables, and its meaning."""
    lines = ["| error | is a | `error_kind` | exit code | meaning |", "|---|---|---|---|---|"]
    for name, one in CLASSES.items():
        parent = one.__base__.__name__ if one.__base__ and one is not errors.GrafpError else ""
        kind = getattr(one, "kind", "") if issubclass(one, errors.AudioError) else ""
        code = "" if kind else "2" if one is errors.OptionError else "1"
        meaning = _cell(" ".join((one.__doc__ or "").split()))
        cells = [f"`{name}`", parent and f"`{parent}`", kind and f"`{kind}`", code, meaning]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def messages_table() -> str:
    """Each message with its class and the module that raises it."""
    lines = ["| error | message | module |", "|---|---|---|"]
    rows = (f"| `{one.error}` | {_cell(one.text)} | `{one.module}` |" for one in messages())
    return "\n".join([*lines, *rows])


if __name__ == "__main__":
    print({"classes": classes_table, "messages": messages_table}[sys.argv[1]]())
