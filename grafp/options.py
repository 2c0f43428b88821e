"""Command lines from typed dataclasses: a field is an option, the text below it is its help.

    @dataclass(kw_only=True)
    class Options:
        catalog: Uri
        '''The catalog.'''
        top_k: Count = 1
        '''Tracks per query.'''

    options = parse(Options, __doc__)  # --catalog URI [--top-k N]

A field's type is an Annotated one with a Kind, a Literal (choices), `bool` (a flag) or
`bool | None` (--gpu and --no-gpu). Two class attributes say more: `exclusive` names groups of
options of which a command line may have one, and `help_from` is a class whose fields have the help
of fields without. `__post_init__` checks options together, and raises OptionError.
"""

import argparse
import ast
import contextlib
import dataclasses
import difflib
import inspect
import math
import os
import sys
import textwrap
import types
import typing
from collections.abc import Callable, Sequence
from dataclasses import MISSING, dataclass
from itertools import pairwise
from typing import Annotated, Any, Literal, NoReturn, TypeVar

from grafp.errors import OptionError

T = TypeVar("T")
BAD_ARGUMENTS = 2
_LARGEST = 2**31 - 1
_HELP = "see --help"


def not_empty(text: str) -> str:
    """Any text but none, which is mostly a variable of the shell that is not set."""
    if not text.strip():
        raise argparse.ArgumentTypeError("is empty")
    return text


@dataclass(frozen=True)
class Kind:
    """How an option's value is written."""

    metavar: str
    """Its unit or kind in the help."""
    read: Callable[[str], Any] = not_empty
    """Raises argparse.ArgumentTypeError that says what would be right."""
    repeatable: bool = False
    variable: str | None = None
    """The variable of the environment that has the value where the command line has none."""


def parse(
    options: type[T],
    description: str | None,
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
) -> T:
    """The options of a command line; a wrong one exits with 2 and one line that names it."""
    return parse_given(options, description, arguments, prog=prog)[0]


def parse_given(
    options: type[T],
    description: str | None,
    arguments: Sequence[str] | None = None,
    *,
    prog: str | None = None,
) -> tuple[T, frozenset[str]]:
    """The same, and the names of the fields that the command line has."""
    values = vars(build_parser(options, description, prog=prog).parse_args(arguments))
    try:
        return options(**values), frozenset(values)
    except OptionError as error:
        refuse(str(error))


def refuse(message: str) -> NoReturn:
    """Exit as for a wrong option."""
    tell(message)
    sys.exit(BAD_ARGUMENTS)


def tell(message: str) -> None:
    """Print an error on standard error."""
    print(f"error: {one_line(message)}", file=sys.stderr, flush=True)


def one_line(message: str) -> str:
    """A text that may have names of files, with what is not printable in them as \\n or \\x1b."""
    return "".join(one if one.isprintable() else repr(one)[1:-1] for one in message)


def build_parser(options: type, description: str | None, *, prog: str | None = None) -> "Parser":
    """The parser of a dataclass, whose result has only the options that are given."""
    parser = Parser(description, prog=prog, argument_default=argparse.SUPPRESS)
    exclusive = getattr(options, "exclusive", ())
    groups = [(names, parser.add_mutually_exclusive_group()) for names in exclusive]
    types_ = typing.get_type_hints(options, include_extras=True)
    docs = _docs(getattr(options, "help_from", object)) | _docs(options)
    inherited = {name for base in options.__mro__[1:] for name in inspect.get_annotations(base)}
    fields = [one for one in dataclasses.fields(options) if one.init]
    for one in sorted(fields, key=lambda one: one.name in inherited):  # common options come last
        parent = next((group for names, group in groups if one.name in names), parser)
        how = _how(types_[one.name])
        default = one.default if one.default_factory is MISSING else one.default_factory()
        if default is MISSING:
            how["required"] = "default" not in how
        option = f"--{one.name}".replace("_", "-")
        parent.add_argument(option, help=_help(docs[one.name], default), **how)
    return parser


class Parser(argparse.ArgumentParser):
    """Shows the description as it is written, then the options; tells an error in one line."""

    def __init__(self, description: str | None, **more: Any) -> None:
        super().__init__(
            description=description, formatter_class=_Formatter, allow_abbrev=False, **more
        )

    def format_help(self) -> str:
        return f"{(self.description or '').strip()}\n\n{self.format_usage()}\n{self._options()}"

    def _options(self) -> str:
        formatter = self._get_formatter()
        formatter.start_section("options")
        formatter.add_arguments(self._actions)
        formatter.end_section()
        return formatter.format_help()

    def parse_known_args(self, args=None, namespace=None):  # type: ignore[no-untyped-def]
        """Tells a misspelled option, before the one that was meant is missed."""
        args = list(sys.argv[1:] if args is None else args)
        known = self._option_string_actions
        for name, _, value in (word.partition("=") for word in args):
            if name.startswith("--") and name not in ("--", *known):
                near = difflib.get_close_matches(name, known, 1)
                hint = f"did you mean {near[0]}?" if near else _HELP
                refuse(f"{name}: no such option; {hint}")
            if name.startswith("--") and value == "--":  # argparse takes it for an empty list
                refuse(f"{name}: '--' is no value")
        return super().parse_known_args(args, namespace)

    def error(self, message: str) -> NoReturn:
        message = message.removeprefix("argument ").replace("with argument ", "with ")
        what, _, names = message.partition(": ")
        if what == "the following arguments are required":
            message = f"{names}: required"
        elif what == "unrecognized arguments":
            message = f"{names}: no such option; {_HELP}"
        refuse(message.replace("expected one argument", "needs a value"))


class _Formatter(argparse.RawDescriptionHelpFormatter):
    """Marks required options, and shows defaults that are values."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text, default = action.help or "", action.default
        if action.required:
            return f"{text} (required)"
        if default is None or default is False or default in ([], argparse.SUPPRESS):
            return text
        return f"{text} (default: %(default)s)"

    def _split_lines(self, text: str, width: int) -> list[str]:
        return textwrap.wrap(" ".join(text.split()), width, break_on_hyphens=False)


def _help(text: str, default: Any) -> str:
    """The help, with the default if it is a value and the text does not tell it."""
    text = text.rstrip(".").replace("%", "%%")
    if default in (None, MISSING, "") or isinstance(default, bool) or "(default" in text:
        return text
    values = default if isinstance(default, list) else [default]
    shown = ",".join(f"{value:g}" if isinstance(value, float) else str(value) for value in values)
    return f"{text} (default: {shown.replace('%', '%%')})" if shown else text


def _how(annotation: Any) -> dict[str, Any]:
    """What add_argument takes for a field of this type."""
    inner = typing.get_args(annotation)
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):  # with None
        if inner[0] is bool:
            return {"action": argparse.BooleanOptionalAction}
        return _how(inner[0])
    if annotation is bool:
        return {"action": "store_true"}
    if typing.get_origin(annotation) is Literal:
        kind = choice(*inner)
    else:
        [kind] = (extra for extra in annotation.__metadata__ if isinstance(extra, Kind))
    action: dict[str, Any] = {"action": "append"} if kind.repeatable else {}
    if kind.variable and (value := os.environ.get(kind.variable)):
        action["default"] = value
    return {"type": kind.read, "metavar": kind.metavar, **action}


def _docs(options: type) -> dict[str, str]:
    """The string below each field of a class and its bases, in one line."""
    docs: dict[str, str] = {}
    for one in reversed(options.__mro__[:-1]):
        module = ast.parse(inspect.getsource(sys.modules[one.__module__]))
        [body] = (
            node.body
            for node in module.body
            if isinstance(node, ast.ClassDef) and node.name == one.__name__
        )
        for field, text in pairwise(body):
            match field, text:
                case (
                    ast.AnnAssign(target=ast.Name(id=name)),
                    ast.Expr(value=ast.Constant(value=str(doc))),
                ):
                    docs[name] = " ".join(doc.split())
    return docs


def choice(*names: str) -> Kind:
    """One of some names."""

    def read(text: str) -> str:
        if text not in names:
            raise argparse.ArgumentTypeError(f"{text!r} is not one of {', '.join(names)}")
        return text

    return Kind("{" + ",".join(names) + "}", read)


def number(low: float = -math.inf, high: float = math.inf) -> Callable[[str], float]:
    """A reader of numbers within two bounds."""

    def read(text: str) -> float:
        value = _finite(text)
        if not low <= value <= high:
            bounds = f"between {low:g} and {high:g}" if high < math.inf else f"{low:g} or more"
            raise argparse.ArgumentTypeError(f"{text} is not {bounds}")
        return value

    return read


def _finite(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise argparse.ArgumentTypeError(f"{text!r} is not a number")
    return value


def local_folder(text: str) -> str:
    """A path on this machine."""
    if "://" in text:
        raise argparse.ArgumentTypeError(f"{text!r} is not a folder of this machine")
    return not_empty(text)


def positive_float(text: str) -> float:
    """A number above 0."""
    with contextlib.suppress(argparse.ArgumentTypeError):
        if (value := _finite(text)) > 0:
            return value
    raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0")


def positive_int(text: str) -> int:
    """A whole number above 0."""
    return _whole_number(text, 1)


def natural_number(text: str) -> int:
    """A whole number of 0 or more."""
    return _whole_number(text, 0)


def _whole_number(text: str, low: int) -> int:
    if not (text.isascii() and text.isdigit()):
        value = low - 1
    else:  # Python reads no more than some thousand digits
        value = int(text) if len(text.lstrip("0")) <= len(str(_LARGEST)) else _LARGEST + 1
    if value < low:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number of {low} or more")
    if value > _LARGEST:
        raise argparse.ArgumentTypeError(f"{text} is more than {_LARGEST}")
    return value


def numbers(low: float, high: float) -> Callable[[str], list[float]]:
    """A reader of lists such as 1,2,5 with each number between two bounds."""

    def read(text: str) -> list[float]:
        try:
            values = [float(part) for part in text.split(",")]
        except ValueError:
            values = []
        if not values or not all(low <= value <= high for value in values):
            raise argparse.ArgumentTypeError(
                f"{text!r} is not a list of numbers of {low:g} to {high:g}, such as 1,2,5"
            )
        return sorted(set(values))

    return read


def whole_numbers(low: int, high: int) -> Callable[[str], list[int]]:
    """The same of whole numbers; 1e6 is one too."""
    read_numbers = numbers(low, high)

    def read(text: str) -> list[int]:
        values = read_numbers(text)
        if not all(value.is_integer() for value in values):
            raise argparse.ArgumentTypeError(f"{text!r} has a number that is not whole")
        return [int(value) for value in values]

    return read


Uri = Annotated[str, Kind("URI")]
Folder = Annotated[str, Kind("FOLDER", local_folder)]
Count = Annotated[int, Kind("N", positive_int)]
Natural = Annotated[int, Kind("N", natural_number)]
Seconds = Annotated[float, Kind("S", positive_float)]
Price = Annotated[float, Kind("PRICE", number(low=0.0))]
