"""Both quality presets side by side, by register, kind of hard text and reason for junk: a table, and a plot as SVG.

``python benchmarks/fit_quality.py DOCS JUNK KEEP_HARD --out FIGURES.json``
``python benchmarks/quality_presets.py FIGURES.json [--plot PRESETS.svg] [--markdown TABLE.md]``

In the plot ``portuguese`` stands for limits fitted without the source of the text that they are judged on; the thin
mark for the limits as they ship, fitted on everything.
"""

import argparse
import json
from collections.abc import Mapping, Sequence
from typing import Any

from caravela import storage
from caravela.progress import table
from caravela.reporting.markup import Html, element, joined

ROW, LEFT, WIDTH, RIGHT, TOP = 22, 250, 520, 160, 64
TITLES = {
    "good": "Documents: share kept (aim: 95 % of the registers in bold, in texts of 50 words or more)",
    "hard": "Good texts that crude rules drop: share kept (aim: 75 %)",
    "junk": "Junk: share kept (aim: at most 4 %)",
}
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; dominant-baseline: middle }
.title { font-weight: 600 } .whole, .aimed { font-weight: 600 } .tick, .count { fill: #6e7781; font-size: 11px }
.grid { stroke: #d8dee4 } .aim { stroke: #1a7f37; stroke-dasharray: 3 3 } .gap { stroke: #afb8c1; stroke-width: 2 }
.old { fill: #ffffff; stroke: #bc4c00; stroke-width: 2 } .new { fill: #0969da }
.apart { stroke: #0969da; stroke-width: 2 } .paper { fill: #ffffff }
"""
Row = Mapping[str, Any]


def main() -> None:
    """Prints the table and writes the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("figures", help="what fit_quality.py wrote")
    parser.add_argument("--plot", default="", help="SVG file")
    parser.add_argument("--markdown", default="", help="file for the table in Markdown")
    options = parser.parse_args()
    found = json.loads(storage.read_text(options.figures))
    headings = ("kept", "kind", "texts", "fineweb2_por_latn", "portuguese", "unseen group", "unseen source")
    names = (*headings[3:5], "unseen_group", "unseen_source")
    rows = [
        (row["label"], row["kind"], f"{row['texts']:,}", *(f"{100 * row[name]:.1f} %" for name in names))
        for row in found["rows"]
    ]
    print(table(headings, rows))
    print(f"{found['mended']} texts of junk were mended by the repair of encodings and are not counted")
    if options.plot:
        storage.write_text(options.plot, plot(found["rows"], found["aim"]))
    if options.markdown:
        lines = [headings, ("---",) * len(headings), *rows]
        storage.write_text(options.markdown, "".join(f"| {' | '.join(line)} |\n" for line in lines))


def plot(rows: Sequence[Row], aim: Sequence[str]) -> str:
    """One line per kind, from FineWeb-2's share to ours."""
    parts: list[Html] = []
    y = TOP
    for label, title in TITLES.items():
        inside = [row for row in rows if row["label"] == label]
        parts.append(element("text", title, x=10, y=y, class_="title"))
        y += ROW
        height = ROW * len(inside)
        for tick in range(0, 101, 20):
            place = x_of(tick / 100)
            parts.append(element("line", x1=place, x2=place, y1=y - ROW / 2, y2=y + height - ROW / 2, class_="grid"))
            parts.append(element("text", f"{tick} %", x=place, y=y + height - 4, text_anchor="middle", class_="tick"))
        least = x_of({"good": 0.95, "hard": 0.75, "junk": 0.04}[label])
        parts.append(element("line", x1=least, x2=least, y1=y - ROW / 2, y2=y + height - ROW / 2, class_="aim"))
        for row in inside:
            parts += line_of(row, y, row["kind"] in aim)
            y += ROW
        y += 2 * ROW
    legend = [
        element("circle", cx=16, cy=24, r=5, class_="old"),
        element("text", "fineweb2_por_latn", x=28, y=24),
        element("circle", cx=170, cy=24, r=5, class_="new"),
        element("text", "portuguese, on sources that its limits were not fitted on", x=182, y=24),
        element("line", x1=585, x2=585, y1=17, y2=31, class_="apart"),
        element("text", "as it ships", x=595, y=24),
    ]
    width = LEFT + WIDTH + RIGHT
    paper = element("rect", width=width, height=y, class_="paper")
    size = {"width": width, "height": y, "viewBox": f"0 0 {width} {y}"}
    drawing = element(
        "svg", Html(f"<style>{STYLE}</style>"), paper, *legend, *parts, xmlns="http://www.w3.org/2000/svg", **size
    )
    return str(joined([drawing])) + "\n"


def x_of(share: float) -> float:
    """Where a share lies."""
    return round(LEFT + WIDTH * share, 1)


def line_of(row: Row, y: float, aimed: bool) -> list[Html]:
    """Name, both shares and the number of texts."""
    old, new, apart = (x_of(row[name]) for name in ("fineweb2_por_latn", "unseen_source", "portuguese"))
    kind = "whole" if row["kind"] in ("all", "registers that are aimed at") else "aimed" if aimed else None
    figures = f"{row['fineweb2_por_latn']:.0%} → {row['unseen_source']:.0%}  of {row['texts']:,}"
    return [
        element("text", row["kind"].replace("_", " "), x=LEFT - 12, y=y, text_anchor="end", class_=kind),
        element("line", x1=old, x2=new, y1=y, y2=y, class_="gap"),
        element("line", x1=apart, x2=apart, y1=y - 7, y2=y + 7, class_="apart"),
        element("circle", cx=old, cy=y, r=5, class_="old"),
        element("circle", cx=new, cy=y, r=4, class_="new"),
        element("text", figures, x=LEFT + WIDTH + 14, y=y, class_="count"),
    ]


if __name__ == "__main__":
    main()
