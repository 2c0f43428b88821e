"""JSON records of this project to checked dataclasses.

A record may have been cut off, edited by hand or written by another version. Pydantic finds what
does not fit; it takes a quarter of a second to import and is imported when a record is read.
"""

from typing import TypeVar

from grafp import storage
from grafp.errors import GrafpError, StorageError

T = TypeVar("T")


def read_record(uri: str, kind: type[T], error: type[GrafpError] = StorageError) -> T:
    """The record stored at a URI. Raises StorageError, and `error` as `parse_record` does."""
    return parse_record(storage.read(uri), kind, uri, error)


def parse_record(
    data: bytes | str, kind: type[T], name: str, error: type[GrafpError] = StorageError
) -> T:
    """A record from its JSON text.

    Args:
        kind: a dataclass, or a type made of some, such as dict[str, StoredFile]. Values must have
            the types of its fields; keys that it does not know are ignored.
        name: of the record, for the error.

    Raises `error`, one line: the name, the field and what is wrong with it.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        return TypeAdapter(kind).validate_json(data, strict=True)
    except ValidationError as invalid:
        first = invalid.errors(include_url=False)[0]
        field = ".".join(str(part) for part in first["loc"])
        reason = " ".join(f"{field}: {first['msg']}".removeprefix(": ").split())
        raise error(f"{name}: damaged ({reason})") from invalid
    except GrafpError as invalid:  # raised by the dataclass itself
        raise error(f"{name}: {invalid}") from invalid
