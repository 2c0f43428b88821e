"""The templates of the HTML reports. They escape every value, and a report loads nothing."""

from collections.abc import Iterable
from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined


def render(template: str, **values: Any) -> str:
    """An HTML document, from a template in templates/; an unknown name in it is an error."""
    return _environment().get_template(template).render(values)


def short_names(uris: Iterable[str]) -> dict[str, str]:
    """Each URI, in the order given, without the folders that all of them begin with."""
    uris = list(dict.fromkeys(uris))
    folders = [uri.split("/")[:-1] for uri in uris]
    common = 0
    while all(len(parts) > common for parts in folders) and len({p[common] for p in folders}) == 1:
        common += 1
    return {uri: "/".join(uri.split("/")[common:]) for uri in uris}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("grafp.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    environment.filters["thousands"] = "{:,}".format
    return environment
