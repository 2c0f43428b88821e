"""What tests read of HTML reports."""

import re
from html.parser import HTMLParser


class Tables(HTMLParser):
    """The text of the cells of all tables, by row."""

    def __init__(self, report: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self._open = False
        self.feed(report)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:  # noqa: ARG002
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._open = True

    def handle_endtag(self, tag: str) -> None:
        self._open = self._open and tag not in ("td", "th")

    def handle_data(self, data: str) -> None:
        if self._open:
            self.rows[-1][-1] += data


def loads_nothing(report: str) -> None:
    targets = re.findall(r'(?:src|href)="([^"]*)"|url\(([^)]*)\)', report)
    assert all(t.startswith(("#", "data:")) for pair in targets for t in pair if t)
    assert "@import" not in report
    assert "<script " not in report  # its own may be there, without attributes
    assert "<link" not in report
