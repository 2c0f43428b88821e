"""The shell of every page: style, tables, cards. A page loads nothing from outside."""

from collections.abc import Sequence
from html import escape


def page(title: str, body: str) -> str:
    """A whole HTML document; `body` is HTML. Dark on dark screens, black on white on paper."""
    return (
        '<!doctype html>\n<html lang="en"><meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n<main>\n{body}\n</main></html>\n"
    )


def table(head: Sequence[str], rows: Sequence[Sequence[str]], caption: str = "") -> str:
    """Rows of text under their titles; the first cell of a row names it where `head` has none."""
    if not rows:
        return "<p>None.</p>"
    told = f"<caption>{escape(caption)}</caption>" if caption else ""
    titles = "".join(f'<th scope="col">{escape(title)}</th>' for title in head)
    lines = ""
    for row in rows:
        cells = [f"<td>{escape(cell)}</td>" for cell in row]
        if not head or not head[0]:
            cells[0] = f'<th scope="row">{escape(row[0])}</th>'
        lines += f"<tr>{''.join(cells)}</tr>\n"
    top = f"<thead><tr>{titles}</tr></thead>\n" if any(head) else ""
    return f'<div class="wide"><table>{told}{top}<tbody>{lines}</tbody></table></div>'


def numbers(caption: str, head: str, body: str) -> str:
    """A table whose rows are HTML already, in cells that are not broken."""
    return (
        f'<div class="wide numbers"><table><caption>{escape(caption)}</caption>'
        f"<thead>{head}</thead><tbody>{body}</tbody></table></div>\n"
    )


def card(number: str, name: str, more: str = "") -> str:
    """A number to see from afar; `more` is HTML below it."""
    return f'<div class="card"><b>{escape(number)}</b><h3>{escape(name)}</h3>{more}</div>'


def cards(items: Sequence[str]) -> str:
    """Cards side by side."""
    return f'<div class="cards">{"".join(items)}</div>'


_STYLE = """
:root{color-scheme:light dark;--ink:#1c2430;--soft:#566273;--line:#d8dee6;--ground:#fff;
--fill:#f3f5f8;--c0:#0b63b5;--c1:#c2500a;--c2:#0d8a62;--c3:#9c3f8f;--c4:#8a6d00}
@media screen and (prefers-color-scheme:dark){:root{--ink:#e4e8ee;--soft:#a2adbb;--line:#353e4a;
--ground:#12161b;--fill:#1c222a;--c0:#6fb3f5;--c1:#f0955a;--c2:#55c99e;--c3:#dd8ed1;--c4:#dabd4e}}
body{font:16px/1.5 system-ui,sans-serif;color:var(--ink);background:var(--ground);margin:0}
main{max-width:72rem;margin:0 auto;padding:1.5rem 1rem 3rem}
h1{font-size:1.9rem;line-height:1.2;margin:.5rem 0} h2{font-size:1.35rem;margin:2.5rem 0 .5rem}
h3{font-size:1rem;margin:1.2rem 0 .3rem} p{max-width:48rem;margin:.5rem 0}
.wide{overflow-x:auto}
table{border-collapse:collapse;font-size:.85rem;font-variant-numeric:tabular-nums;margin:.8rem 0}
caption{text-align:left;font-weight:600;padding:.3rem 0}
td,th{text-align:left;vertical-align:top;padding:.3rem .7rem .3rem 0;
border-bottom:1px solid var(--line);overflow-wrap:anywhere}
.numbers td,.numbers th{white-space:nowrap}
thead th{color:var(--soft);font-weight:600;overflow-wrap:normal} tbody th{font-weight:500}
.cards{display:grid;grid-template-columns:repeat(auto-fit,minmax(10rem,1fr));gap:1rem;margin:1rem 0}
.card{border:1px solid var(--line);border-radius:.6rem;padding:.8rem 1rem;break-inside:avoid}
.card b{font-size:1.8rem;line-height:1.2;color:var(--c0)} .card h3{margin:0}
.card p{margin:.2rem 0;color:var(--soft);font-size:.85rem}
.bar{position:relative;height:.5rem;background:var(--line);border-radius:.25rem;margin:.5rem 0}
.bar i{position:absolute;height:100%;min-width:2px;background:var(--c0);border-radius:.25rem}
.bar,.bar i{print-color-adjust:exact;-webkit-print-color-adjust:exact}
.figures{display:grid;margin:1.2rem 0;gap:1.5rem 2rem;
grid-template-columns:repeat(auto-fill,minmax(min(100%,28rem),1fr))}
figure{margin:0;break-inside:avoid} figcaption{font-size:.85rem;margin-bottom:.3rem}
.legend{color:var(--soft);font-size:.8rem;margin-right:.9rem;white-space:nowrap}
.legend svg{width:1.6rem;height:.7rem;vertical-align:baseline}
figure>svg{width:100%;height:auto;display:block}
svg text{font-size:11px;fill:var(--soft);paint-order:stroke;stroke:var(--ground);stroke-width:3px}
svg .axis{stroke:var(--line);stroke-width:1;fill:none}
svg .mark{stroke:var(--soft);stroke-dasharray:4 3;fill:none}
svg .s{fill:none;stroke:currentColor;stroke-width:1.8} svg .dash{stroke-dasharray:4 3;opacity:.75}
svg .f{fill:currentColor;stroke:none}
svg .area{fill:currentColor;fill-opacity:.18;stroke:currentColor}
.c0{color:var(--c0)}.c1{color:var(--c1)}.c2{color:var(--c2)}.c3{color:var(--c3)}.c4{color:var(--c4)}
.pictures{display:flex;flex-wrap:wrap;gap:1rem}
.pictures img{image-rendering:pixelated;max-width:100%}
.cases{display:flex;flex-wrap:wrap;gap:0 3rem}
article{break-inside:avoid;margin:0 0 1rem;max-width:100%}
article p{max-width:32rem;font-size:.85rem}
small{display:block;font-size:.72rem;font-weight:400;color:var(--soft)}
.soft td,.soft th{color:var(--soft)}
@media print{main{max-width:none;padding:0} body{font-size:11px} a{color:inherit} h2,h2+p,h3,caption
{break-after:avoid} tr{break-inside:avoid} .wide{overflow:visible} td,th{padding-right:.4rem}
.figures{grid-template-columns:1fr 1fr}}
"""
