"""Section of the page on the tokenizer: its fit to held-out text beside others, and the sample it was learnt from."""

from collections.abc import Mapping, Sequence
from typing import Any

from caravela.reporting import charts
from caravela.reporting.markup import Html, count, element, number, percent, short_count, size
from caravela.reporting.parts import Column, Tile, fold, plural, section, table, tiles

ALGORITHMS = {"bpe": "byte-pair encoding", "unigram": "unigram model"}
NOT_KNOWN = "not known"
WORDS = (
    "Words are what white space separates. A byte-fallback token is a part of a character, line breaks not counted. "
    "The less text, the more pieces are unused."
)
CHANGED = (
    "Where documents do not come back as they were, the tokenizer throws something away and needs fewer tokens for it."
)


def tokenizer_section(figures: Mapping[str, Any]) -> Html | None:
    """How the vocabulary fits the text, and how much of it was packed."""
    found, fit, packed = figures["tokenizer"], figures["tokenizer_fit"], figures["packing"]
    if not found:
        return None
    pieces, algorithm = found["vocabulary_size"], ALGORITHMS.get(found["algorithm"], "SentencePiece")
    learnt = f"{size(found['sampled_bytes'])} of the run's own documents" if "sampled_bytes" in found else "the run"
    lead = f"A vocabulary of {count(pieces)} pieces ({algorithm}), learnt from {learnt}"
    items = []
    if fit:
        everything = fit["groups"][0]
        lead += f" and measured on {plural(everything['documents'], 'document')} ({size(everything['bytes'])}) "
        lead += "that it has not seen" if fit["held_out"] else "among those, because none was held out"
        own = everything["figures"][0]
        items = [
            Tile("Tokens per word", number(own["tokens_per_word"]), "fertility; 1 would be a piece for every word"),
            Tile("Bytes per token", number(own["bytes_per_token"]), "more is shorter sequences"),
            Tile("Byte fallback", _small_share(own["byte_fallback_share"]), "of tokens are bytes of rare characters"),
            Tile("Unused pieces", percent(own["unused_pieces_share"]), f"of {count(pieces)} do not occur in that text"),
        ]
    if packed:
        rows = f"{plural(packed['train_rows'], 'row')} of {count(packed['context'])} and a token"
        items += [
            Tile("Tokens to train on", short_count(packed["train_tokens"]), rows),
            Tile("Tokens held out", short_count(packed["validation_tokens"]), plural(packed["validation_rows"], "row")),
        ]
    parts = [tiles(items) if items else None, *(_fit(fit) if fit else []), _sample(found)]
    return section("tokenizer", "Tokenizer", f"{lead}.", *parts)


def _fit(fit: Mapping[str, Any]) -> list[Html | None]:
    """The plot, the table over all documents, and a table for each field."""
    tokenizers, groups = fit["tokenizers"], fit["groups"]
    names = [each["name"] for each in tokenizers]
    fields = list(dict.fromkeys(group["field"] for group in groups if group["field"]))
    drawn = [
        charts.Row(
            group["value"],
            [figures["tokens_per_word"] for figures in group["figures"]],
            first=group["field"] != before,
        )
        for group, before in zip(groups, [None, *(group["field"] for group in groups)], strict=False)
    ]
    several = len(names) > 1
    others = [
        (each["name"], each["kind"], count(each["pieces"]), *_cells(fit, figures), percent(figures["back_share"]))
        for each, figures in zip(tokenizers, groups[0]["figures"], strict=True)
    ]
    columns = [Column("Tokenizer", "text"), Column("Kind", "text"), Column("Pieces"), *_columns(fit)]
    columns.append(Column("Come back"))
    changed = any(figures["documents_back"] < groups[0]["documents"] for figures in groups[0]["figures"])
    note = f"{WORDS} {CHANGED}" if changed else WORDS
    if len(names) > charts.MOST_DOT_SERIES:
        note += f" The plot shows the first {charts.MOST_DOT_SERIES} tokenizers."
    return [
        charts.dot_chart("Tokens per word", drawn, names) if several or fields else None,
        table(columns, others, "Tokenizers on all held-out documents") if several else None,
        element("p", note, class_="note"),
        *(_field(field, fit, names) for field in fields),
    ]


def _field(field: str, fit: Mapping[str, Any], names: Sequence[str]) -> Html:
    """Every figure for every value of a field."""
    own = [group for group in fit["groups"] if group["field"] == field]
    several = len(names) > 1
    rows = [
        (
            group["value"],
            *([name] if several else []),
            count(group["documents"]),
            size(group["bytes"]),
            *_cells(fit, figures),
        )
        for group in own
        for name, figures in zip(names, group["figures"], strict=True)
    ]
    columns = [
        Column(_field_name(field), "text"),
        *([Column("Tokenizer", "text")] if several else []),
        *(Column(name) for name in ("Documents", "Text")),
        *_columns(fit),
    ]
    shown = plural(len(own), "value")
    return fold(
        f"All figures by {_field_name(field).lower()}", field, shown, table(columns, rows, f"Figures by {field}")
    )


def _columns(fit: Mapping[str, Any]) -> list[Column]:
    unknown = ["Unknown"] if _any_unknown(fit) else []
    return [Column(name) for name in ("Tokens/word", "Bytes/token", "Byte fallback", *unknown, "Unused")]


def _cells(fit: Mapping[str, Any], figures: Mapping[str, Any]) -> list[str]:
    return [
        number(figures["tokens_per_word"], 3),
        number(figures["bytes_per_token"], 3),
        _small_share(figures["byte_fallback_share"]),
        *([_small_share(figures["unknown_share"])] if _any_unknown(fit) else []),
        percent(figures["unused_pieces_share"]),
    ]


def _any_unknown(fit: Mapping[str, Any]) -> bool:
    return any(figures["unknown_tokens"] for figures in fit["groups"][0]["figures"])


def _small_share(share: float) -> str:
    """``_small_share(0.00397) == "0.40%"``."""
    return "0%" if share == 0 else "<0.01%" if share < 5e-5 else f"{share:.2%}"


def _field_name(field: str) -> str:
    return field.removeprefix("metadata.").replace("_", " ").capitalize()


def _sample(found: Mapping[str, Any]) -> Html | None:
    """What each stratum has and gave to the vocabulary."""
    strata = found.get("largest_strata")
    if not strata:
        return None
    fields = list(strata[0]["stratum"])
    taken = found["sampled_bytes"]
    rows = [
        (
            ", ".join(NOT_KNOWN if value is None else value for value in row["stratum"].values()) or "all",
            count(row["documents"]),
            size(row["bytes"]),
            percent(row["bytes"] / max(1, found["learnable_bytes"])),
            size(row["sampled_bytes"]),
            percent(row["sampled_bytes"] / max(1, taken)),
        )
        for row in strata
    ]
    heading = ", ".join(_field_name(field).lower() for field in fields).capitalize() or "Documents"
    columns = [
        Column(heading, "text"),
        *(Column(name) for name in ("Documents", "Text", "Share", "Learnt from", "Share of that")),
    ]
    shown = f"{plural(found['strata'], 'stratum', 'strata')}"
    more = found["strata"] - len(strata)
    note = (
        element("p", f"{plural(more, 'smaller stratum', 'smaller strata')} not shown.", class_="note") if more else None
    )
    return fold("What it was learnt from", ", ".join(fields), shown, table(columns, rows, "Strata of the sample"), note)
