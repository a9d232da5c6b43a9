"""Sections of the page on documents: the funnel, what was removed and why, duplicates."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caravela.reporting import charts
from caravela.reporting.markup import Html, count, element, number, percent, size
from caravela.reporting.parts import Column, fold, language_tag, passage, plural, section, table
from caravela.reporting.reasons import explanation
from caravela.reporting.scores import join_probability
from caravela.reporting.verification import verification_part

STEPS = {
    "in": "records in",
    "read": "readable",
    "extract": "with text",
    "language": "Portuguese",
    "quality": "of quality",
    "deduplicate": "unique",
    "repeated text": "without repeats",
}
STEP_TITLES = {
    "read": "Reading",
    "url": "URL rules",
    "extract": "Extraction",
    "repeated lines": "Repeated lines",
    "language": "Language",
    "blocks before quality": "Blocks before quality",
    "quality": "Quality",
    "c4": "C4's rules",
    "blocks": "Blocks",
    "decontamination": "Decontamination",
    "dedup": "Deduplication",
    "spans": "Repeated text",
}


def funnel_section(figures: Mapping[str, Any]) -> Html | None:
    """Documents and bytes after every step."""
    steps = figures["funnel"]
    if not steps:
        return None
    first, last = steps[0], steps[-1]
    share = last["documents"] / max(1, first["documents"])
    lead = (
        f"Of {plural(first['documents'], 'record')}, {count(last['documents'])} came through every step "
        f"({percent(share)}), with {size(last['bytes'])} of text. What did not is kept apart, with its reason."
    )
    documents = [charts.Bar(step_name(s["step"]), s["documents"], count(s["documents"])) for s in steps]
    sizes = [charts.Bar(step_name(s["step"]), s["bytes"], size(s["bytes"])) for s in steps if s["bytes"] is not None]
    rows = []
    for step, before in zip(steps, [None, *steps[:-1]], strict=True):
        lost = None if before is None else before["documents"] - step["documents"]
        rows.append(
            (
                step_name(step["step"]),
                count(step["documents"]),
                count(lost),
                percent(None if before is None else lost / max(1, before["documents"])),
                percent(step["documents"] / max(1, first["documents"])),
                size(step["bytes"]),
            )
        )
    columns = ["After the step", "Documents", "Removed", "Of those before", "Left of all", "Bytes"]
    return section(
        "funnel",
        "From records to documents",
        lead,
        charts.stacked([charts.bar_chart("Documents", documents), charts.bar_chart("Bytes", sizes)]),
        table([Column(name) for name in columns], rows, "Documents and bytes after every step"),
        element(
            "p",
            "The first bar of bytes counts pages as they were fetched, markup included; the others count UTF-8 text.",
            class_="note",
        ),
    )


def step_name(step: str) -> str:
    return STEPS.get(step, step)


def removed_section(figures: Mapping[str, Any]) -> Html | None:
    """Every reason, with its count and some documents."""
    reasons: Sequence[Mapping[str, Any]] = figures["removed"]
    if not reasons:
        return None
    total = sum(row["documents"] for row in reasons)
    parts: list[Html] = []
    for step in dict.fromkeys(row["step"] for row in reasons):
        own = [row for row in reasons if row["step"] == step]
        title = f"{STEP_TITLES.get(step, step)} · {plural(sum(row['documents'] for row in own), 'document')}"
        folds = [_reason(row, total) for row in own]
        parts.append(element("div", element("h3", title, class_="step"), *folds))
    lead = (
        f"{plural(total, 'document')} removed, for {plural(len(reasons), 'reason')}. Open a reason to read some of "
        "its documents, chosen by a hash of their ids."
    )
    return section("removed", "What was removed, and why", lead, *parts)


def _reason(row: Mapping[str, Any], total: int) -> Html:
    shown = [_example(example, row["step"] == "dedup") for example in row["examples"]]
    nothing = element("p", "None of these documents lies in the parts of the table that were read.", class_="note")
    figure = f"{count(row['documents'])} · {percent(row['documents'] / total)}"
    meaning = explanation(row["reason"])
    name, code = (meaning[0].upper() + meaning[1:], row["reason"]) if meaning else (row["reason"], "")
    return fold(name, code, figure, *(shown or [nothing]))


def _example(example: Mapping[str, Any], lost: bool) -> Html:
    facts = [example["url"] or example["id"], f"kept instead: {example['detail']}" if lost else example["detail"]]
    if example["language"] not in example["detail"].split():
        facts.append(example["language"])
    if example["characters"]:
        facts.append(plural(example["characters"], "character"))
    source = element("p", " · ".join(fact for fact in facts if fact), class_="source")
    return element("div", source, passage(example["text"], example["language"]), class_="example")


def duplicates_section(figures: Mapping[str, Any]) -> Html | None:
    """How many there were, in clusters of what size, and two documents side by side."""
    found = figures["duplicates"]
    if not found:
        return None
    gone = found["exact"] + found["near"]
    lead = (
        f"Of {plural(found['documents_in'], 'curated document')}, {count(gone)} "
        f"({percent(gone / max(1, found['documents_in']))}) repeat another: {count(found['exact'])} exactly, but for "
        f"case and white space, and {count(found['near'])} nearly. "
        + (
            f"They lie in {plural(found['clusters'], 'cluster')} of up to {plural(found['largest'], 'document')}; the "
            "best of each cluster was kept."
            if gone
            else ""
        )
    )
    bars = [charts.Bar(_size_range(b), b["clusters"], count(b["clusters"])) for b in found["cluster_sizes"]]
    kinds = [charts.Bar(kind, found[kind], count(found[kind])) for kind in ("exact", "near")]
    left = (
        [charts.bar_chart("Clusters, by number of documents", bars), charts.bar_chart("Removed duplicates", kinds)]
        if bars
        else []
    )
    drawn = [element("div", *left), *_join_chart(found, (figures["scores"] or {}).get("deduplication"))]
    verified = verification_part(found["verification"])
    return section("duplicates", "Duplicates", lead, charts.stacked(drawn), verified, _pair(found["example"]))


def _size_range(bin_: Mapping[str, int]) -> str:
    return str(bin_["from"]) if bin_["from"] == bin_["to"] else f"{bin_['from']:,}–{bin_['to']:,}"


def _join_chart(found: Mapping[str, Any], scored: Mapping[str, Any] | None) -> list[Html]:
    """The chance of being joined, from bands and rows; and what became of copies whose similarity is known."""
    bands, rows = found["bands"], found["rows_per_band"]
    if not bands or not rows:
        return []
    curve = [(s / 50, join_probability(s / 50, bands, rows)) for s in range(51)]
    series = [charts.Series(f"{bands} bands of {rows}, in theory", curve)]
    if scored:
        points = [(b["mean_jaccard"], b["joined"] / b["pairs"]) for b in scored["bins"] if b["pairs"]]
        series.append(charts.Series("labelled copies", points, "dots"))
    title = "Share of pairs joined, by Jaccard similarity"
    return [charts.line_chart(title, series, "similarity of two texts", from_zero=True, x_range=(0, 1))]


def _marked(runs: Sequence[tuple[str, bool]]) -> Iterator[object]:
    for text, differs in runs:
        words = text.rstrip()
        yield element("mark", words) if differs and words else words
        yield text[len(words) :]


def _pair(example: Mapping[str, Any] | None) -> Html | None:
    if example is None:
        return None
    sides = []
    for side, title in (("kept", "Kept"), ("removed", "Removed")):
        document = example[side]
        quoted = element("blockquote", *_marked(example[f"{side}_words"]), lang=language_tag(document["language"]))
        source = element("p", document["url"] or document["id"], class_="source")
        sides.append(element("div", element("h4", title), source, quoted))
    note = (
        f"Two documents of a cluster of {count(example['cluster_size'])}, of Jaccard similarity "
        f"{number(example['similarity'])}; words that differ are marked."
    )
    beside = element("div", *sides, class_="beside")
    return element(
        "div", element("h3", "A near-duplicate and what it lost to"), element("p", note, class_="note"), beside
    )
