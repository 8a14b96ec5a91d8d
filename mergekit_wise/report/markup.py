"""Sheets and facts as HTML. Everything that comes from a record is escaped here."""

import math
from collections.abc import Iterable, Mapping, Sequence
from html import escape

from mergekit_wise.report.sheet import Cell, Row, Sheet


def table(sheet: Sheet, stops_of: Mapping[tuple[int, float], Sequence[int]]) -> str:
    """A sortable table in a region that scrolls; `stops_of` says at which stops of the slider a mixture is shown."""
    head = "".join(_head(title, place, sheet) for place, title in enumerate(sheet.columns))
    body = "".join(_row(row, sheet, stops_of) for row in sheet.rows)
    foot = "".join(_row(row, sheet, {}) for row in sheet.summary)
    wide = ' class="wide"' if len(sheet.columns) > 10 else ""
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="{escape(sheet.title)}"><table{wide}>'
        f'<caption class="hidden">{escape(sheet.title)}</caption><thead><tr>{head}</tr></thead>'
        f"<tbody>{body}</tbody>{f'<tfoot>{foot}</tfoot>' if foot else ''}</table></div>"
    )


def _head(title: str, place: int, sheet: Sheet) -> str:
    kind = ' class="text"' if _is_text(place, sheet) else ""
    if len(sheet.rows) < 2:
        return f'<th scope="col"{kind}><span>{escape(title)}</span></th>'
    return f'<th scope="col"{kind} aria-sort="none"><button type="button">{escape(title)}</button></th>'


def _is_text(place: int, sheet: Sheet) -> bool:
    """Whether a column is aligned as text: it names the row, or no cell of it has a number."""
    return place < sheet.names or all(math.isnan(row.cells[place].number) for row in sheet.rows)


def _row(row: Row, sheet: Sheet, stops_of: Mapping[tuple[int, float], Sequence[int]]) -> str:
    stops: Sequence[int] = ()
    if row.curve is not None and row.alpha is not None:
        stops = stops_of.get((row.curve, row.alpha), ())
    attribute = f' data-stops="{" ".join(map(str, stops))}"' if stops else ""
    return f"<tr{attribute}>{''.join(_cell(cell, at, sheet) for at, cell in enumerate(row.cells))}</tr>"


def _cell(cell: Cell, place: int, sheet: Sheet) -> str:
    tag, scope = ("th", ' scope="row"') if place < sheet.names else ("td", "")
    classes = [name for name, here in (("text", _is_text(place, sheet)), ("best", cell.best)) if here]
    attribute = f' class="{" ".join(classes)}"' if classes else ""
    number = "" if math.isnan(cell.number) else f' data-v="{cell.number:.6g}"'
    text = f"<b>{escape(cell.text)}</b>" if cell.best else escape(cell.text)
    note = f"<small>{escape(cell.note)}</small>" if cell.note else ""
    return f"<{tag}{scope}{attribute}{number}>{text}{note}</{tag}>"


def facts(pairs: Iterable[tuple[str, str]]) -> str:
    """Names and what they stand for."""
    return f'<dl class="facts">{"".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in pairs)}</dl>'


def moving(tag: str, texts: Sequence[str], start: int, classes: str = "") -> str:
    """An element whose text follows the slider; texts are numbers and such, without |."""
    attribute = f' class="{classes}"' if classes else ""
    return f'<{tag}{attribute} data-at="{escape("|".join(texts))}">{escape(texts[start])}</{tag}>'
