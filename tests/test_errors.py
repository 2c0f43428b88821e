"""Every error has a meaning, is raised somewhere, and is in the documentation's tables."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1] / "docs"))
import error_tables

from grafp import errors


def test_every_error_says_what_it_means() -> None:
    assert len(error_tables.CLASSES) > 15
    table = error_tables.classes_table()
    for name, one in error_tables.CLASSES.items():
        assert "__doc__" in vars(one)
        assert one.__doc__, name
        assert f"| `{name}` |" in table


def test_every_error_is_raised_somewhere() -> None:
    raised = {message.error for message in error_tables.messages()}
    assert set(error_tables.CLASSES) - raised == {errors.GrafpError.__name__}


def test_messages_begin_with_the_thing_that_is_wrong() -> None:
    found = error_tables.messages()
    assert len(found) > 150
    assert any(message.text.startswith("...: no catalog here") for message in found)
    for message in found:
        assert len(message.text) > 8, message
        assert not message.text.removesuffix("...").endswith((".", "!")), message
        assert "\n" not in message.text, message
