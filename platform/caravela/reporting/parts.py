"""The pieces that sections of the page are built from: sections, tables, folds, tiles, quoted texts."""

from collections.abc import Sequence
from typing import NamedTuple

from caravela.reporting.markup import Html, element

# What language identification calls them, to what HTML's ``lang`` calls them.
LANGUAGE_TAGS = {"por": "pt", "spa": "es", "glg": "gl", "cat": "ca", "ita": "it", "fra": "fr", "eng": "en", "deu": "de"}


class Column(NamedTuple):
    """A table's column; figures stand to the right, text to the left."""

    heading: str
    kind: str = "figure"
    """``figure``, ``text`` or ``meter``."""


class Tile(NamedTuple):
    """One headline figure."""

    label: str
    figure: str
    aside: str = ""


def section(anchor: str, title: str, lead: object, *content: object) -> Html:
    """A part of the page with a sentence that says what it shows."""
    opening = element("p", lead, class_="lead") if lead else None
    return element("section", element("h2", title), opening, *content, id=anchor)


def table(
    columns: Sequence[Column], rows: Sequence[Sequence[object]], label: str, *, footer: Sequence[object] = ()
) -> Html:
    """A table that scrolls sideways where the screen is narrow; the first cell of a row is its heading."""
    classes = {"figure": None, "text": "text", "meter": "meter"}
    head = element(
        "tr", *(element("th", c.heading, scope="col", class_="text" if c.kind == "text" else None) for c in columns)
    )

    def line(cells: Sequence[object]) -> Html:
        first, *others = cells
        rest = (element("td", cell, class_=classes[c.kind]) for cell, c in zip(others, columns[1:], strict=True))
        return element("tr", element("th", first, scope="row"), *rest)

    body = element("tbody", *map(line, rows))
    foot = element("tfoot", line(footer)) if footer else None
    whole = element("table", element("thead", head), body, foot)
    return element("div", whole, class_="scroll", role="region", aria_label=label, tabindex=0)


def fold(name: str, code: str, figure: str, *content: object) -> Html:
    """A line that opens: what it is called, what it is called in the data, and a figure."""
    summary = element(
        "summary",
        element("span", name, element("code", code) if code else None, class_="name"),
        element("span", figure, class_="count") if figure else None,
    )
    return element("details", summary, element("div", *content, class_="inside"))


def tiles(items: Sequence[Tile], course: Sequence[Tile] = ()) -> Html:
    """Headline figures in a grid; first, in a row, those of ``course``, which lead from one to the next."""
    legs = (element("div", *_tile(item), class_="tile leg") for item in course)
    return element("dl", *legs, *(element("div", *_tile(item), class_="tile") for item in items), class_="tiles")


def _tile(item: Tile) -> list[Html]:
    aside = [element("dd", item.aside, class_="aside")] if item.aside else []
    return [element("dt", item.label), element("dd", item.figure, class_="figure"), *aside]


def passage(text: str, language: str = "", absent: str = "no text") -> Html:
    """Text of a document."""
    if not text:
        return element("blockquote", absent, class_="empty")
    return element("blockquote", text, lang=language_tag(language))


def language_tag(label: str) -> str | None:
    """``language_tag("por_Latn") == "pt"``; None where nothing is known."""
    code = label.partition("_")[0].lower()
    return LANGUAGE_TAGS.get(code, code or None)


def plural(count: int, one: str, more: str = "") -> str:
    """``plural(1200, "page") == "1,200 pages"``."""
    return f"{count:,} {one if count == 1 else more or one + 's'}"
