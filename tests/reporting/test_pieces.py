"""The pieces of the report: figures, charts, choices, excerpts, colours."""

import itertools
import random
import re
from collections.abc import Iterator, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

from caravela import schema
from caravela.reporting import charts, examples, markup, page, tables, training
from caravela.stages import Shard, ShardOutput, Stage
from tests.reporting.reader import Reader
from tests.road_without_ray import finish


def test_element_escapes_text_and_attributes_and_leaves_markup() -> None:
    inner = markup.element("b", "a < b & c")
    made = markup.element("p", inner, None, "<i>", title='"x"', class_="k", aria_hidden=True, lang=None)
    assert made == '<p title="&quot;x&quot;" class="k" aria-hidden><b>a &lt; b &amp; c</b>&lt;i&gt;</p>'


@pytest.mark.parametrize(
    ("made", "expected"),
    [
        (markup.count(18_631), "18,631"),
        (markup.count(None), "–"),
        (markup.short_count(9_999), "9,999"),
        (markup.short_count(2_361_024), "2.36 M"),
        (markup.short_count(24_500_000_000), "24.5 B"),
        (markup.size(999), "999 B"),
        (markup.size(1_234_567), "1.23 MB"),
        (markup.percent(0.934), "93.4%"),
        (markup.percent(0.99999), "99.9%"),
        (markup.percent(1.0), "100%"),
        (markup.percent(0.0001), "<0.1%"),
        (markup.number(1234.5), "1,234.50"),
        (markup.number(0.0003), "3.0e-04"),
        (markup.duration(4.26), "4.3 s"),
        (markup.duration(59.7), "1 min 00 s"),
        (markup.duration(75), "1 min 15 s"),
        (markup.duration(9_000), "2 h 30 min"),
    ],
)
def test_figures_read_as_people_write_them(made: str, expected: str) -> None:
    assert made == expected


@pytest.mark.parametrize(
    ("low", "high", "expected"),
    [
        (0, 7, [0, 2, 4, 6, 8]),
        (4.2, 7.9, [4, 5, 6, 7, 8]),
        (0, 3e-3, [0, 1e-3, 2e-3, 3e-3]),
        (5, 5, [5]),
        (-1, 1, [-1, -0.5, 0, 0.5, 1]),
    ],
)
def test_ticks_are_round_and_span_the_range(low: float, high: float, expected: list[float]) -> None:
    assert charts.ticks(low, high) == pytest.approx(expected)


def test_line_chart_places_points_by_their_values() -> None:
    drawn = charts.line_chart("t", [charts.Series("a", [(0, 0), (5, 10), (10, 5)])], "x")
    assert f'd="M0.0 {charts.PLOT_HEIGHT}.0L500.0 0.0L1000.0 {charts.PLOT_HEIGHT / 2}"' in drawn


@pytest.mark.parametrize("points", [[], [(1, 2.0)], [(1, 0.0), (2, 0.0)]])
def test_line_chart_takes_degenerate_series(points: list[tuple[float, float]]) -> None:
    Reader(charts.line_chart("t", [charts.Series("a", points)], "x", from_zero=True))


def test_dot_chart_places_marks_by_their_values_with_a_shape_for_each_series() -> None:
    rows = [charts.Row("um", [1.0, 2.0]), charts.Row("dois", [1.5, 3.0], first=True)]
    drawn = charts.dot_chart("t", rows, ["a", "b"])
    places = re.findall(
        r'<svg x="([\d.]+)%" y="(\d+)" class="place"><path d="([^"]+)" class="mark series-(\d)">', drawn
    )
    middle = charts.ROW_HEIGHT // 2
    below = middle + charts.ROW_HEIGHT + charts.BLOCK_GAP
    expected = [(50.0, middle, 1), (0.0, middle, 0), (100.0, below, 1), (25.0, below, 0)]
    assert [(float(x), int(y), int(series)) for x, y, _, series in places] == expected
    assert all(shape == charts.MARKS[int(series)] for _, _, shape, series in places)
    assert "um: a 1, b 2; dois: a 1.5, b 3" in drawn


@pytest.mark.parametrize("values", [[], [1.5], [float(i) for i in range(9)]])
def test_dot_chart_takes_none_one_and_more_series_than_marks(values: list[float]) -> None:
    rows = [charts.Row("x" * 60, values)] if values else []
    drawn = charts.dot_chart("t", rows, [f"n{i}" for i in range(len(values))])
    Reader(drawn)
    assert drawn.count('class="place"') == min(len(values), charts.MOST_DOT_SERIES)


def test_first_by_rank_does_not_depend_on_order() -> None:
    names = [f"document {i}" for i in range(200)]
    expected = sorted(names, key=lambda name: (tables.rank(name), name))[:7]
    for seed in range(3):
        random.Random(seed).shuffle(names)
        first: tables.FirstByRank[str] = tables.FirstByRank(7)
        for name in [*names, *names]:
            if first.wants(name):
                first.add(name, name)
        assert first.rows() == expected


def test_first_by_rank_of_none_wants_none() -> None:
    assert not tables.FirstByRank[str](0).wants("a")


def test_batches_read_parts_that_lie_evenly(tmp_path: Path) -> None:
    def worker(shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        out.table("documents", schema.documents()).add({"id": str(shard.index), "text": ""})
        return {}

    many = Stage(
        name="many",
        version=1,
        root=str(tmp_path),
        config={},
        inputs=(),
        plan=lambda: [Shard(index=i, name=str(i), spec={}) for i in range(10)],
        make_worker=lambda: worker,
    )
    done = finish(many)
    read = list(tables.batches(done, "documents", ("id",), 4))
    assert list(itertools.chain.from_iterable(b["id"].to_pylist() for b in read)) == ["0", "2", "5", "7"]


@pytest.mark.parametrize(
    ("given", "expected"),
    [("  um dois  ", "um dois"), ("um dois três", "um dois …"), ("inconstitucional", "inconstitu …"), ("", "")],
)
def test_excerpt_ends_after_a_word(given: str, expected: str) -> None:
    assert examples.excerpt(given, 10) == expected


def test_differing_words_put_together_are_the_texts() -> None:
    first, second = "a casa azul\nda rua", "a casa verde\nda rua nova"
    runs = examples.differing_words(first, second)
    assert ["".join(words for words, _ in side) for side in runs] == [first, second]
    assert [[words.strip() for words, differs in side if differs] for side in runs] == [["azul"], ["verde", "nova"]]


def test_thinned_curve_keeps_its_mean_and_its_end() -> None:
    points = [(float(i), float(i * i)) for i in range(1, 10_001)]
    thin = training.thinned(points, 300)
    assert len(thin) == 300
    assert thin[-1] == points[-1]
    assert thin[0][0] == pytest.approx(17.0)  # the mean of 1 to 33
    assert training.thinned(points[:300], 300) == points[:300]


def palette(style: str, begin: str) -> dict[str, str]:
    block = style[style.index(begin) :]
    return dict(re.findall(r"--([\w-]+): (#[0-9a-f]{6});", block[: block.index("}")]))


def luminance(colour: str) -> float:
    """WCAG 2.2, relative luminance."""
    parts = [int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def palettes() -> Iterator[Any]:
    style = resources.files(page.__package__).joinpath("style.css").read_text(encoding="utf-8")
    yield pytest.param(palette(style, ":root"), id="light")
    yield pytest.param(palette(style, "prefers-color-scheme: dark"), id="dark")


@pytest.mark.parametrize("colours", palettes())
@pytest.mark.parametrize(("ink", "paper"), [*itertools.product(("ink", "soft", "sea", "sail"), ("paper", "raised"))])
def test_text_stands_out_from_its_ground(colours: dict[str, str], ink: str, paper: str) -> None:
    light, dark = sorted((luminance(colours[ink]), luminance(colours[paper])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5


@pytest.mark.parametrize("colours", palettes())
def test_marked_words_stand_out(colours: dict[str, str]) -> None:
    light, dark = sorted((luminance(colours["mark-ink"]), luminance(colours["mark"])), reverse=True)
    assert (light + 0.05) / (dark + 0.05) >= 4.5
