"""The share of pairs joined over their true similarity, as SVG: the curve, and each tool with its interval."""

from collections.abc import Mapping, Sequence
from typing import Any

from caravela.reporting.markup import Html, element, joined
from filters.dedup.config import DedupConfig

WIDTH, HEIGHT, LEFT, TOP = 640, 360, 60, 70
SHIFT = 5
STYLE = """
text { font: 13px system-ui, sans-serif; fill: #24292f; dominant-baseline: middle }
.title { font-weight: 600 } .tick { fill: #6e7781; font-size: 11px } .paper { fill: #ffffff }
.grid { stroke: #d8dee4 } .curve { stroke: #6e7781; stroke-width: 1.5; fill: none; stroke-dasharray: 4 3 }
.t0 { fill: #0969da; stroke: #0969da } .t1 { fill: #bc4c00; stroke: #bc4c00 } .t2 { fill: #8250df; stroke: #8250df }
"""


def plot(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> str:
    """One mark per bin and tool, side by side, at the mean similarity of the bin's pairs."""
    title = "Pairs joined directly, by their Jaccard similarity"
    parts: list[Html] = [element("text", title, x=LEFT, y=20, class_="title")]
    for tick in range(0, 101, 20):
        y = down(tick / 100)
        parts.append(element("line", x1=LEFT, x2=LEFT + WIDTH, y1=y, y2=y, class_="grid"))
        parts.append(element("text", f"{tick} %", x=LEFT - 8, y=y, text_anchor="end", class_="tick"))
        x, low = across(tick / 100), TOP + HEIGHT + 14
        parts.append(element("text", f"{tick / 100:.1f}", x=x, y=low, text_anchor="middle", class_="tick"))
    points = " ".join(f"{across(s / 100)},{down(DedupConfig().probability(s / 100))}" for s in range(101))
    parts.append(element("polyline", points=points, class_="curve"))
    legend = LEFT
    for i, name in enumerate(names):
        parts.append(element("circle", cx=legend + 5, cy=44, r=4, class_=f"t{i}"))
        parts.append(element("text", name, x=legend + 16, y=44))
        legend += 50 + 8 * len(name)
        for row in rows:
            x, own = across(row["similarity"]) + SHIFT * (i - (len(names) - 1) / 2), row[name]
            parts.append(element("line", x1=x, x2=x, y1=down(own["low"]), y2=down(own["high"]), class_=f"t{i}"))
            parts.append(element("circle", cx=x, cy=down(own["joined"]), r=2.5, class_=f"t{i}"))
    parts.append(element("line", x1=legend, x2=legend + 24, y1=44, y2=44, class_="curve"))
    parts.append(element("text", "1 − (1 − s⁸)¹⁴", x=legend + 32, y=44))
    width, height = LEFT + WIDTH + 40, TOP + HEIGHT + 34
    paper = element("rect", width=width, height=height, class_="paper")
    size = {"width": width, "height": height, "viewBox": f"0 0 {width} {height}"}
    style = Html(f"<style>{STYLE}</style>")
    drawing = element("svg", style, paper, *parts, xmlns="http://www.w3.org/2000/svg", **size)
    return str(joined([drawing])) + "\n"


def across(similarity: float) -> float:
    return round(LEFT + WIDTH * similarity, 1)


def down(share: float) -> float:
    return round(TOP + HEIGHT * (1 - share), 1)
