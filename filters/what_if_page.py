"""The page of stage ``what_if``: each rule's share as bars and in a table, and its curve with the limit marked.

In: the figures of ``filters.what_if.collect``. Out: HTML in the style of the report.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caravela.reporting import charts
from caravela.reporting.charts import Bar, Series
from caravela.reporting.markup import Html, count, element, percent, short_count
from caravela.reporting.page import document
from caravela.reporting.parts import Column, Tile, section, table, tiles
from caravela.reporting.reasons import explanation

MOST_BARS = 16


def render(figures: Mapping[str, Any]) -> str:
    """The whole document."""
    sections = [
        ("rules", "Rules", _bars(figures)),
        ("figures", "Figures", _table(figures)),
        ("curves", "Curves", _curves(figures)),
    ]
    facts = element("p", f"On the signals in {figures['finished_run']}", class_="facts mono")
    return document(
        "What other limits would drop",
        [facts, _tiles(figures)],
        [(anchor, name) for anchor, name, _ in sections],
        [content for _, _, content in sections],
        "Made by Caravela. The same figures are in what_if.json beside this file.",
    )


def _tiles(figures: Mapping[str, Any]) -> Html:
    kept = figures["kept"]
    return tiles(
        [
            Tile("Come", count(figures["kept_only_now"]["documents"]), _text(figures["kept_only_now"])),
            Tile("Go", count(figures["dropped_only_now"]["documents"]), _text(figures["dropped_only_now"])),
            Tile(
                "Characters kept",
                short_count(kept["tried"]["characters"]),
                f"{short_count(kept['finished']['characters'])} in the finished run",
            ),
        ],
        [
            Tile("Measured", count(figures["documents"]), _text(figures)),
            Tile("Kept in the finished run", count(kept["finished"]["documents"]), _share(kept["finished"], figures)),
            Tile("Kept under these limits", count(kept["tried"]["documents"]), _share(kept["tried"], figures)),
        ],
    )


def _text(dropped: Mapping[str, int]) -> str:
    return f"{short_count(dropped['characters'])} characters"


def _share(dropped: Mapping[str, int], figures: Mapping[str, Any]) -> str:
    return f"{percent(dropped['documents'] / max(1, figures['documents']))} of those measured"


def _bars(figures: Mapping[str, Any]) -> Html:
    drawn = [
        charts.bar_chart(title, _longest_bars(figures, kind), long_labels=True)
        for title, kind in (
            ("Dropped by the rule alone", "alone"),
            ("Dropped in order, by the first rule broken", "in_order"),
        )
    ]
    lead = (
        "Alone: documents that break the rule, whatever others they break. In order: those that no rule before it "
        "took, as curation counts them."
    )
    return section("rules", "What each rule drops", lead, charts.stacked(drawn))


def _longest_bars(figures: Mapping[str, Any], kind: str) -> list[Bar]:
    total = max(1, figures["documents"])
    found = [(rule["rule"].partition(".")[2], rule[kind]["tried"]["documents"]) for rule in figures["rules"]]
    found = sorted((each for each in found if each[1]), key=lambda each: -each[1])[:MOST_BARS]
    return [Bar(name, n, f"{count(n)} · {percent(n / total)}") for name, n in found] or [Bar("no rule", 0, "0")]


def _table(figures: Mapping[str, Any]) -> Html:
    columns = [
        *(Column("Rule", "text"), Column("Limit"), Column("Alone"), Column("In order"), Column("Only this rule")),
        *(Column("Limit there"), Column("In order there"), Column("Change")),
    ]
    lead = (
        "“Only this rule” is what switching it off would bring back. “There” is the finished run, under its own "
        "limits. A rule that is off in both is left out."
    )
    return section("figures", "Rule by rule", lead, table(columns, list(_rows(figures)), "Documents dropped, by rule"))


def _rows(figures: Mapping[str, Any]) -> Iterator[Sequence[object]]:
    for rule in figures["rules"]:
        limits = rule["limit"]
        if limits["tried"] is None and limits["finished"] is None:
            continue
        change = rule["in_order"]["tried"]["documents"] - rule["in_order"]["finished"]["documents"]
        yield (
            rule["rule"].partition(".")[2],
            element("strong", _limit(rule, "tried"))
            if limits["tried"] != limits["finished"]
            else _limit(rule, "tried"),
            *(count(rule[kind]["tried"]["documents"]) for kind in ("alone", "in_order", "only")),
            _limit(rule, "finished"),
            count(rule["in_order"]["finished"]["documents"]),
            f"{change:+,}" if change else "",
        )


def _limit(rule: Mapping[str, Any], name: str) -> str:
    limit = rule["limit"][name]
    return "off" if limit is None else f"{'≤' if rule['side'] == 'above' else '≥'} {limit:,.6g}"


def _curves(figures: Mapping[str, Any]) -> Html:
    drawn = [_curve(rule, figures) for rule in figures["rules"] if rule["curve"]]
    lead = (
        "The share of measured documents that a rule would drop alone, for each limit it might have. The marks are the "
        "limits: those tried, and where they differ those of the finished run."
    )
    return section("curves", "Share dropped against the limit", lead, charts.stacked(drawn))


def _curve(rule: Mapping[str, Any], figures: Mapping[str, Any]) -> Html:
    total = max(1, figures["documents"])
    points = [(x, 100 * y) for x, y in rule["curve"]]
    series = [Series("% dropped", points)]
    limits = rule["limit"]
    aside = ["off"] if limits["tried"] is None and limits["finished"] is None else []
    for name, shown in (("tried", "tried"), ("finished", "finished run")):
        limit = limits[name]
        if (name == "finished" and limit == limits["tried"]) or aside == ["off"]:
            continue
        if limit is None:
            aside.append(f"{shown}: off")
        elif points[0][0] * 0.5 <= limit <= points[-1][0] * 1.5:
            share = rule["alone"][name]["documents"] / total
            series.append(Series(f"{shown} {_limit(rule, name)}: {percent(share)}", [(limit, 100 * share)], "dots"))
        else:
            aside.append(f"{shown} {_limit(rule, name)}, beyond the picture")
    left = min(x for one in series for x, _ in one.points)
    right = max(x for one in series for x, _ in one.points)
    reason = rule["rule"].partition(".")[2]
    meaning = explanation(rule["rule"])
    at = "at most" if rule["side"] == "above" else "at least"
    chart = charts.line_chart(reason, series, f"{rule['signal']}, {at}", from_zero=True, x_range=(left, right))
    note = "; ".join(filter(None, [meaning[:1].upper() + meaning[1:], *aside]))
    return element("div", chart, element("p", f"{note}.", class_="note") if note else None)
