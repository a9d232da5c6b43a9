"""The page: report.json's figures as one HTML file that needs nothing but itself.

In: the dict of ``collect``. Out: HTML. The page runs no script, loads nothing (its content security policy says so to
the browser), follows the reader's light or dark setting, and prints.
"""

import datetime
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import Any

from caravela import storage
from caravela.reporting import charts
from caravela.reporting.markup import Html, count, duration, element, joined, number, percent, short_count, size
from caravela.reporting.page_curation import duplicates_section, funnel_section, removed_section
from caravela.reporting.page_model import evaluation_section, samples_section, training_section
from caravela.reporting.page_packed import packed_section
from caravela.reporting.page_scores import scores_section
from caravela.reporting.page_tokenizer import tokenizer_section
from caravela.reporting.parts import Column, Tile, fold, plural, section, table, tiles
from caravela.reporting.spans import spans_section

POLICY = "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'none'"
SAIL = "M4 23h24c-1.2 3.4-4 5.5-8 5.5h-8c-4 0-6.8-2.1-8-5.5zM15 3v18H6.5C11 16 14 10 15 3zM17 7c5 3.5 8 8.5 9 14h-9z"

OPTIONAL = ("spans",)
"""Sections on what is off by default: nobody looks for them in vain."""


def render(figures: Mapping[str, Any]) -> str:
    """The whole document."""
    title = figures["title"] or f"Run {storage.name_of(figures['root'])}"
    sections = [
        ("road", "Road", _road_section(figures)),
        ("funnel", "Funnel", funnel_section(figures)),
        ("removed", "Removed", removed_section(figures)),
        ("duplicates", "Duplicates", duplicates_section(figures)),
        ("spans", "Repeated text", spans_section(figures)),
        ("scores", "Against the labels", scores_section(figures)),
        ("tokenizer", "Tokenizer", tokenizer_section(figures)),
        ("packed", "Packed tokens", packed_section(figures)),
        ("training", "Training", training_section(figures)),
        ("evaluation", "Evaluation", evaluation_section(figures)),
        ("samples", "Generated text", samples_section(figures)),
        ("config", "Config", _config_section(figures)),
    ]
    shown = [(anchor, name, content) for anchor, name, content in sections if content is not None]
    absent = [name for anchor, name, content in sections if content is None and anchor not in OPTIONAL]
    return document(
        title,
        [_facts(figures), _missing(figures, absent), _tiles(figures)],
        [(anchor, name) for anchor, name, _ in shown],
        [content for _, _, content in shown],
        "Made by Caravela. The same figures are in report.json beside this file.",
    )


def document(
    title: str, opening: Sequence[object], links: Sequence[tuple[str, str]], sections: Sequence[object], footer: str
) -> str:
    """A page of ``sections`` below its title, what opens it, and links to them as (anchor, name)."""
    style = Html(resources.files(__package__).joinpath("style.css").read_text(encoding="utf-8"))
    head = element(
        "head",
        element("meta", charset="utf-8"),
        element("meta", http_equiv="Content-Security-Policy", content=POLICY),
        element("meta", name="viewport", content="width=device-width, initial-scale=1"),
        element("meta", name="color-scheme", content="light dark"),
        element("title", f"{title} · Caravela"),
        element("style", style),
    )
    nav = element("nav", *(element("a", name, href=f"#{anchor}") for anchor, name in links), aria_label="Sections")
    body = element(
        "body",
        element("header", _brand(), element("h1", title), *opening, nav),
        element("main", *sections),
        element("footer", footer),
    )
    return joined([Html("<!doctype html>\n"), element("html", head, body, lang="en"), Html("\n")])


def _brand() -> Html:
    ship = element("svg", element("path", d=SAIL, fill="currentColor"), viewBox="0 0 32 32", aria_hidden="true")
    return element("p", ship, "Caravela", class_="brand")


def _facts(figures: Mapping[str, Any]) -> Html:
    lines = [element("p", figures["root"], class_="facts mono")]
    versions = ", ".join(f"{name} {version}" for name, version in figures["versions"].items())
    if figures["finished"]:
        end = datetime.datetime.fromisoformat(figures["finished"])
        lines.append(element("p", f"Finished {end.day} {end:%B %Y}, {end:%H:%M} UTC", class_="facts"))
    if versions:
        lines.append(element("p", versions, class_="facts"))
    return joined(lines)


def _missing(figures: Mapping[str, Any], absent: list[str]) -> Html | None:
    """What a reader might look for in vain."""
    sentences = []
    if figures["missing"]:
        sentences.append(f"Not finished when this report was made: {', '.join(figures['missing'])}.")
    if absent:
        sentences.append(f"Nothing to show in this run for: {', '.join(absent)}.")
    return element("p", " ".join(sentences), class_="missing") if sentences else None


def _tiles(figures: Mapping[str, Any]) -> Html | None:
    headline = figures["headline"]
    course = []
    if (documents_in := headline["documents_in"]) is not None:
        kept, unique = headline["documents_kept"], headline["documents_deduplicated"]
        course.append(Tile("Records in", count(documents_in), size(figures["funnel"][0]["bytes"]) + " as fetched"))
        course.append(Tile("Kept", count(kept), f"{percent(kept / max(1, documents_in))} of records"))
        if unique is not None:
            course.append(Tile("Unique", count(unique), f"{percent(unique / max(1, documents_in))} of records"))
    items = []
    if headline["bytes_of_text"] is not None:
        items.append(Tile("Text", size(headline["bytes_of_text"]), "UTF-8, of these documents"))
    if headline["tokens"] is not None:
        items.append(Tile("Tokens", short_count(headline["tokens"]), "packed for training and validation"))
    if headline["parameters"] is not None:
        items.append(Tile("Parameters", short_count(headline["parameters"]), f"{count(headline['parameters'])} in all"))
    if headline["final_loss"] is not None:
        held_out = headline["final_validation_loss"]
        aside = "last step, nats per token" if held_out is None else f"last step; {number(held_out)} on held-out text"
        items.append(Tile("Training loss", number(headline["final_loss"]), aside))
    if headline["bits_per_byte"] is not None:
        aside = f"perplexity {number(headline['perplexity'], 1)} per token"
        items.append(Tile("Bits per byte", number(headline["bits_per_byte"], 3), aside))
    items.append(Tile("Time", duration(headline["seconds"]), plural(len(figures["road"]), "stage")))
    return tiles(items, course)


def _road_section(figures: Mapping[str, Any]) -> Html | None:
    """The stages, in order."""
    road = figures["road"]
    if not road:
        return None
    longest = max(stage["seconds"] for stage in road) or 1
    rows = [
        (
            stage["stage"],
            count(stage["shards"]),
            ", ".join(f"{name} {rows:,}" for name, rows in stage["rows"].items()) or plural(stage["files"], "file"),
            size(stage["bytes"]),
            duration(stage["seconds"]),
            charts.inline_bar(stage["seconds"] / longest),
            size(stage["peak_memory_bytes"] or None),
        )
        for stage in road
    ]
    columns = [
        Column("Stage", "text"),
        Column("Shards"),
        Column("Rows", "text"),
        Column("Written"),
        Column("Time"),
        Column("", "meter"),
        Column("Peak memory"),
    ]
    total = duration(sum(stage["seconds"] for stage in road))
    footer = ("all", "", "", size(sum(stage["bytes"] for stage in road)), total, "", "")
    lead = "Every stage reads what those before it wrote. Time is that of the run that finished the stage."
    return section("road", "The road", lead, table(columns, rows, "Stages", footer=footer))


def _config_section(figures: Mapping[str, Any]) -> Html | None:
    """All settings that the results depend on."""
    if not figures["config"]:
        return None
    prints = {stage["stage"]: stage["fingerprint"] for stage in figures["road"]}
    folds = [
        fold(name, prints.get(name, ""), "", element("pre", element("code", toml or "# no settings")))
        for name, toml in figures["config"].items()
    ]
    lead = "What each stage was made with, and the fingerprint that names its directory: equal settings, equal bytes."
    return section("config", "Config", lead, *folds)
