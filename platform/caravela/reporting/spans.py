"""Sentences or lines that stood in several documents: what the stage ``trim`` took out, for report.json and the page.

In: its manifest, absent where nothing of the kind is done. Out: a plain dict, and the page's section from it. Of the
table ``cuts`` a few parts are read, as of every table of examples.
"""

from collections.abc import Mapping
from typing import Any

from caravela.manifest import Manifest
from caravela.reporting.examples import excerpt
from caravela.reporting.markup import Html, count, element, percent, size
from caravela.reporting.parts import Column, passage, plural, section, table
from caravela.reporting.tables import FirstByRank, batches

COUNTERS = ("documents_in", "documents_cut", "documents_kept", "repeats", "cuts")
BYTES = ("bytes_in", "bytes_cut", "bytes_removed", "bytes_kept")


def repeated_spans(trim: Manifest | None, examples: int, excerpt_characters: int, parts: int) -> dict[str, Any] | None:
    """What was looked at and what went, with some of the texts that were cut out, chosen by a hash of themselves."""
    if trim is None:
        return None
    chosen: FirstByRank[dict[str, str]] = FirstByRank(examples)
    for batch in batches(trim, "cuts", ("id", "text"), parts):
        for identifier, text in zip(batch["id"].to_pylist(), batch["text"].to_pylist(), strict=True):
            if chosen.wants(text):
                chosen.add(text, {"id": identifier, "text": excerpt(text, excerpt_characters)})
    counted = {name: trim.counters.get(name, 0) for name in (*COUNTERS, *BYTES)}
    return {**trim.summary, **counted, "examples": chosen.rows()}


def spans_section(figures: Mapping[str, Any]) -> Html | None:
    """How much text stood in several documents, and some of it."""
    found = figures["spans"]
    if not found:
        return None
    unit = "line" if found["unit"] == "lines" else f"run of {found['length']} sentences"
    units = "lines" if found["unit"] == "lines" else f"runs of {found['length']} sentences"
    removed = found["documents_in"] - found["documents_kept"]
    lead = (
        f"Of {plural(found['spans'], unit, units)} in {plural(found['documents_in'], 'unique document')}, "
        f"{count(found['repeats'])} ({percent(found['repeats'] / max(1, found['spans']))}) had stood before and were "
        f"taken out: {size(found['bytes_cut'])} of text from {plural(found['documents_cut'], 'document')}. "
        f"{plural(removed, 'document')} had too little left and went whole."
    )
    names = {"bytes_in": "before", "bytes_cut": "cut out", "bytes_removed": "gone with documents", "bytes_kept": "left"}
    rows = [(name, size(found[key]), percent(found[key] / max(1, found["bytes_in"]))) for key, name in names.items()]
    shown = [
        element("div", element("p", example["id"], class_="source"), passage(example["text"]), class_="example")
        for example in found["examples"]
    ]
    heading = [element("h3", "Some of what was cut out")] if shown else []
    columns = [Column("Text"), Column("Bytes"), Column("Share")]
    return section("spans", "Repeated text", lead, table(columns, rows, "Text that was cut out"), *heading, *shown)
