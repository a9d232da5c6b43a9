"""Small charts as inline SVG: bars in rows, dots in rows, and lines.

Widths are percentages of the figure and text keeps its size, so that a chart is as readable on a telephone as on a
wide screen. Colours are CSS classes (``series-0`` ...) and follow the page's light or dark palette. Each SVG is one
image with a title that says what it shows.
"""

import itertools
import math
from collections.abc import Sequence
from typing import Literal, NamedTuple

from caravela.reporting.markup import Html, element, joined

BAR_HEIGHT = 30
PLOT_HEIGHT = 200
MOST_DOTS = 40
ROW_HEIGHT = 26
BLOCK_GAP = 14
MOST_LABEL_CHARACTERS = 32
MARKS = (
    "M-5.5 0a5.5 5.5 0 1 0 11 0a5.5 5.5 0 1 0 -11 0z",
    "M-5 -5h10v10h-10z",
    "M0 -7l6.5 11.5h-13z",
    "M0 -7l7 7l-7 7l-7 -7z",
    "M0 7l6.5 -11.5h-13z",
    "M-7 -2h5v-5h4v5h5v4h-5v5h-4v-5h-5z",
)
"""Outlines around (0, 0), one for each series: shapes tell them apart where colours do not."""
MOST_DOT_SERIES = len(MARKS)
PLOT_WIDTH = 1000
"""Units of the stretched inner drawing; any number will do."""


class Bar(NamedTuple):
    """A row of a bar chart: its name, its length, and the figure written at its end."""

    label: str
    value: float
    text: str


class Row(NamedTuple):
    """A row of a dot chart: its name, one value for each series, and whether it begins a new block of rows."""

    label: str
    values: Sequence[float]
    first: bool = False


class Series(NamedTuple):
    """A line, dots, or a line with dots at its points; ``points`` are (x, y) in the order of x."""

    name: str
    points: Sequence[tuple[float, float]]
    kind: Literal["line", "dots", "dotted"] = "line"


def bar_chart(title: str, bars: Sequence[Bar], *, long_labels: bool = False) -> Html:
    """Bars from the left, the longest as wide as the figure; ``long_labels`` leaves room for thirty characters."""
    longest = max((bar.value for bar in bars), default=0) or 1
    rows = []
    for i, bar in enumerate(bars):
        middle, width = i * BAR_HEIGHT + BAR_HEIGHT / 2, f"{bar.value / longest:.2%}"
        rows += [
            element("text", bar.label, x=-10, y=middle, text_anchor="end", class_="label"),
            element("rect", x=0, y=middle - 9, width=width, height=18, rx=2, class_="bar"),
            element("text", bar.text, x=width, y=middle, dx=8, class_="value"),
        ]
    described = "; ".join(f"{bar.label} {bar.text}" for bar in bars)
    return _figure("bars wide" if long_labels else "bars", title, len(bars) * BAR_HEIGHT, [], rows, described)


def dot_chart(title: str, rows: Sequence[Row], names: Sequence[str]) -> Html:
    """A mark for each series on every row, over an x axis that spans all values; the first series lies on top."""
    values = [value for row in rows for value in row.values[:MOST_DOT_SERIES]]
    if not values:
        return element("p", f"{title}: nothing was measured.", class_="note")
    marks = ticks(min(values), max(values), 5)
    low, high = min(marks[0], min(values)), max(marks[-1], max(values))

    def across(x: float) -> str:
        return f"{(x - low) / (high - low) if high > low else 0.5:.2%}"

    middles, y = [], 0.0
    for number, row in enumerate(rows):
        y += BLOCK_GAP if row.first and number else 0
        middles.append(y + ROW_HEIGHT / 2)
        y += ROW_HEIGHT
    parts = []
    for x in marks:
        place = {"x1": across(x), "x2": across(x), "y1": 0, "y2": f"{y:g}"}
        parts.append(element("line", **place, class_="grid"))
        where = {"x": across(x), "y": f"{y + 14:g}", "text_anchor": "middle"}
        parts.append(element("text", tick_text(x, marks), **where, class_="tick"))
    shown = list(enumerate(names))[:MOST_DOT_SERIES]
    for row, middle in zip(rows, middles, strict=True):
        parts.append(element("text", _shortened(row.label), x=-14, y=f"{middle:g}", text_anchor="end", class_="label"))
        ends = [across(extreme(row.values[:MOST_DOT_SERIES])) for extreme in (min, max)]
        parts.append(element("line", x1=ends[0], x2=ends[1], y1=f"{middle:g}", y2=f"{middle:g}", class_="span"))
        for i, _ in reversed(shown):
            mark = element("path", d=MARKS[i], class_=f"mark series-{i}")
            parts.append(element("svg", mark, x=across(row.values[i]), y=f"{middle:g}", class_="place"))
    described = "; ".join(
        f"{row.label}: {', '.join(f'{name} {row.values[i]:.4g}' for i, name in shown)}" for row in rows
    )
    keys = [_mark_key(i, name) for i, name in shown if len(shown) > 1]
    wide = max(len(row.label) for row in rows) > MOST_LABEL_CHARACTERS // 2
    return _figure("marks wide" if wide else "marks", title, round(y) + 24, keys, parts, described)


def _shortened(label: str) -> str:
    return label if len(label) <= MOST_LABEL_CHARACTERS else f"…{label[1 - MOST_LABEL_CHARACTERS :]}"


def _mark_key(number: int, name: str) -> Html:
    mark = element("path", d=MARKS[number], class_=f"mark series-{number}")
    drawing = element("svg", mark, viewBox="-8 -8 16 16", width=14, height=14, aria_hidden="true")
    return element("span", drawing, name, class_="key")


def line_chart(
    title: str,
    series: Sequence[Series],
    x_name: str,
    *,
    from_zero: bool = False,
    x_range: tuple[float, float] | None = None,
) -> Html:
    """Lines over a common x. ``from_zero`` makes the y axis begin at 0."""
    drawn = [one for one in series if one.points]
    xs = [x for one in drawn for x, _ in one.points]
    ys = [y for one in drawn for _, y in one.points]
    if not xs:
        return element("p", f"{title}: nothing was measured.", class_="note")
    left, right = x_range or (min(xs), max(xs))
    y_ticks = ticks(0 if from_zero else min(ys), max(ys))
    low, high = min(y_ticks[0], min(ys)), max(y_ticks[-1], max(ys))

    def across(x: float) -> float:
        return (x - left) / (right - left) if right > left else 0.5

    def down(y: float) -> float:
        return PLOT_HEIGHT * (1 - ((y - low) / (high - low) if high > low else 0.5))

    parts = []
    for y in y_ticks:
        parts.append(element("line", x1=0, x2="100%", y1=f"{down(y):.1f}", y2=f"{down(y):.1f}", class_="grid"))
        parts.append(element("text", tick_text(y, y_ticks), x=-8, y=f"{down(y):.1f}", text_anchor="end", class_="tick"))
    x_ticks = [x for x in ticks(left, right, 6) if left <= x <= right]
    for x in x_ticks:
        anchor = "start" if across(x) < 0.03 else "end" if across(x) > 0.97 else "middle"
        place = {"x": f"{across(x):.2%}", "y": PLOT_HEIGHT + 16, "text_anchor": anchor}
        parts.append(element("text", tick_text(x, x_ticks), **place, class_="tick"))
    parts.append(element("text", x_name, x="100%", y=PLOT_HEIGHT + 34, text_anchor="end", class_="tick"))
    lines = []
    for i, one in enumerate(drawn):
        points = [f"{across(x) * PLOT_WIDTH:.1f} {down(y):.1f}" for x, y in one.points]
        if one.kind != "dots":
            lines.append(element("path", d="M" + "L".join(points), class_=f"series-{i}"))
        if one.kind == "dots" or (one.kind == "dotted" and len(points) <= MOST_DOTS):
            # A dot is a line of no length with round ends: it stays round when the drawing is stretched.
            lines.append(element("path", d="".join(f"M{point}h0" for point in points), class_=f"dots series-{i}"))
    box = f"0 0 {PLOT_WIDTH} {PLOT_HEIGHT}"
    parts.append(
        element(
            "svg", *lines, viewBox=box, preserveAspectRatio="none", width="100%", height=PLOT_HEIGHT, class_="lines"
        )
    )
    keys = [
        element("span", element("i", class_=f"{one.kind} series-{i}"), one.name, class_="key")
        for i, one in enumerate(drawn)
        if len(drawn) > 1
    ]
    described = "; ".join(
        f"{one.name} from {one.points[0][1]:.4g} at {one.points[0][0]:.4g} to {one.points[-1][1]:.4g} "
        f"at {one.points[-1][0]:.4g}"
        for one in drawn
    )
    return _figure("lines", title, PLOT_HEIGHT + 38, keys, parts, described)


def _figure(kind: str, title: str, height: int, keys: Sequence[Html], parts: Sequence[Html], described: str) -> Html:
    legend = element("span", *keys, class_="legend") if keys else None
    drawing = element("svg", element("title", f"{title}: {described}"), *parts, width="100%", height=height, role="img")
    return element(
        "figure",
        element("figcaption", element("span", title), legend),
        element("div", drawing, class_="plot"),
        class_=f"chart {kind}",
    )


def ticks(low: float, high: float, wanted: int = 4) -> list[float]:
    """Round numbers (1, 2 or 5 times a power of ten apart) that span the range: ``ticks(0, 7) == [0, 2, 4, 6, 8]``."""
    if not high > low:
        return [low]
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * m for m in (1, 2, 5, 10) if power * m >= rough * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    return [float(f"{i * step:.12g}") for i in range(first, last + 1)]


def tick_text(value: float, among: Sequence[float]) -> str:
    """A tick as text, with as many digits as its neighbours need."""
    largest = max(map(abs, among))
    if largest and largest < 0.01:
        return f"{value:.0e}".replace("e-0", "e-") if value else "0"
    if largest >= 10_000:
        return f"{value / 1000:,g} k" if value else "0"
    gap = min((b - a for a, b in itertools.pairwise(among)), default=1)
    return f"{value:,.{max(0, -math.floor(math.log10(gap) + 1e-9)) if gap > 0 else 0}f}"


def inline_bar(share: float) -> Html:
    """A bar for a table's cell: decoration beside a figure that is written out."""
    rect = element("rect", width=f"{max(0.0, min(1.0, share)):.2%}", height="100%", rx=1, class_="bar")
    return element("svg", rect, class_="inline", width="100%", height=8, aria_hidden="true")


def stacked(parts: Sequence[Html]) -> Html:
    """Charts side by side where there is room."""
    return element("div", joined(parts), class_="pair")
