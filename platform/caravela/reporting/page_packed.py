"""Section of the page on packed tokens: what they are made of, how long documents are, and some rows to read."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from caravela.reporting import charts
from caravela.reporting.markup import Html, count, element, number, percent, short_count
from caravela.reporting.parts import Column, Tile, fold, plural, section, table, tiles

CHARTED_VALUES = 8
METHODS = {
    "concatenated": "Documents stand one after the other and are cut where a row ends.",
    "best_fit": "Whole documents are put where they fit best; only those longer than a row are cut.",
}
NO_VALUE = "none"
NOTE = "Below, a document counts as often as it is packed, and whole, whatever of it was dropped at the end of a shard."


def packed_section(figures: Mapping[str, Any]) -> Html | None:
    """Tokens by group and length, and ten rows of each source."""
    packed = figures["packing"]
    if not packed or "composition" not in packed:
        return None
    tokens = packed["train_tokens"] + packed["validation_tokens"]
    # A field that no document has says nothing.
    named = {
        name: group for name, group in packed["composition"].items() if any(entry["value"] for entry in group["values"])
    }
    lead = (
        f"{short_count(tokens)} tokens of {plural(packed['documents_kept'], 'document')} in rows of "
        f"{count(packed['context'] + 1)}. {METHODS[packed['method']]}"
    )
    return section(
        "packed",
        "Packed tokens",
        lead,
        tiles(list(_tiles(packed))),
        element("p", NOTE, class_="note"),
        charts.stacked([*_by_group(named, tokens), *_by_length(packed)]),
        *(_values(name, group, tokens) for name, group in named.items()),
        _rows(figures["packed_rows"]),
    )


def _tiles(packed: Mapping[str, Any]) -> Iterator[Tile]:
    documents = packed["train_documents"] + packed["validation_documents"]
    cut = packed["train_documents_cut"] + packed["validation_documents_cut"]
    yield Tile("Documents cut", percent(packed["cut_share"]), f"{count(cut)} of {count(documents)} in rows")
    padding = packed["train_padding"] + packed["validation_padding"]
    yield Tile("Padding", percent(packed["padding_share"]), f"{count(padding)} places that no loss counts")
    dropped = packed["train_dropped"] + packed["validation_dropped"]
    yield Tile("Dropped", percent(packed["dropped_share"]), f"{count(dropped)} tokens at the ends of shards")
    if repeats := documents - packed["documents_kept"]:
        yield Tile("Repeats", count(repeats), "copies of documents of large clusters, beyond the first")
    sizes = packed["text_bytes"] / max(1, packed["train_tokens"] + packed["validation_tokens"])
    yield Tile("Bytes per token", number(sizes), "of the packed text, special tokens counted")


def _by_group(groups: Mapping[str, Any], tokens: int) -> Iterator[Html]:
    for name, group in groups.items():
        shown = group["values"][:CHARTED_VALUES]
        bars = [_bar(entry["value"] or NO_VALUE, entry["tokens"]) for entry in shown]
        if (left := tokens - sum(entry["tokens"] for entry in shown)) > 0:
            bars.append(_bar("all others", left))
        yield charts.bar_chart(f"Tokens by {_title(name)}", bars, long_labels=True)


def _bar(label: str, tokens: int) -> charts.Bar:
    return charts.Bar(_short(label), tokens, short_count(tokens))


def _by_length(packed: Mapping[str, Any]) -> Iterator[Html]:
    lengths = packed["lengths"]
    if not lengths:
        return
    ranges = [f"{short_count(bin_['from'])} to {short_count(bin_['to'])}" for bin_ in lengths]
    for title, name in (("Documents by length in tokens", "documents"), ("Tokens by length of document", "tokens")):
        bars = [
            charts.Bar(label, bin_[name], short_count(bin_[name])) for label, bin_ in zip(ranges, lengths, strict=True)
        ]
        yield charts.bar_chart(title, bars, long_labels=True)


def _values(name: str, group: Mapping[str, Any], tokens: int) -> Html:
    """All the values that the summary names."""
    columns = [
        Column(_title(name).capitalize(), "text"),
        Column("Documents"),
        Column("Tokens"),
        Column("Share"),
        Column("Held out"),
        Column("Bytes per token"),
    ]
    entries = [(entry["value"] or NO_VALUE, entry) for entry in group["values"]]
    if group["rest"]:
        entries.append(("all others", group["rest"]))
    rows = [
        (
            _short(label, 60),
            count(entry["documents"]),
            count(entry["tokens"]),
            percent(entry["tokens"] / max(1, tokens)),
            count(entry["validation_tokens"]),
            number(entry["bytes"] / max(1, entry["tokens"])),
        )
        for label, entry in entries
    ]
    heading = f"By {_title(name)}"
    return fold(heading, "", plural(len(group["values"]), "value"), table(columns, rows, heading))


def _rows(by_source: Sequence[Mapping[str, Any]]) -> Html | None:
    if not by_source:
        return None
    shown = [
        fold(_short(entry["source"] or NO_VALUE, 60), "", plural(len(entry["rows"]), "row"), *map(_row, entry["rows"]))
        for entry in by_source
    ]
    lead = "Rows at random by the source of the document that they begin with, as the model gets them, cut short."
    return element("div", element("h3", "Rows"), element("p", lead, class_="note"), *shown)


def _row(row: Mapping[str, Any]) -> Html:
    parts: list[object] = [element("p", element("strong", f"Part {row['part']}, row {row['row']}"))]
    for stretch in row["stretches"]:
        said = [_short(stretch["document"], 60), plural(stretch["tokens"], "token")]
        if not stretch["begins"]:
            said.append("began in another row")
        if not stretch["ends"]:
            said.append("does not end here")
        parts += [element("p", " · ".join(said), class_="facts"), element("blockquote", stretch["text"].strip("\n"))]
    rest = [plural(row["more_documents"], "document") + " more"] if row["more_documents"] else []
    if row["padding"]:
        rest.append(f"{plural(row['padding'], 'token')} of padding")
    end = element("p", " · ".join(rest), class_="facts") if rest else None
    return element("div", *parts, end, class_="example")


def _title(name: str) -> str:
    return name.removeprefix("metadata.").replace("_", " ")


def _short(label: str, characters: int = 28) -> str:
    return label if len(label) <= characters else f"{label[: characters - 1]}…"
