"""Random packed rows of each source, decoded and cut short.

In: the manifests of the stages ``pack`` and ``tokenizer``. Out: plain dicts for report.json. A row is of the source of
the document that it begins with. The pack stage has chosen rows by a hash in every shard; of ``parts`` shards, lying
evenly over it, those with the smallest hashes are shown, so a large run's report costs no more than a small one's.
"""

import collections
from typing import Any

import pyarrow.parquet as pq

from caravela import storage
from caravela.data import preview, tokenizer
from caravela.manifest import Manifest

SHOWN_SOURCES = 10
SHOWN_ROWS = 10
SHOWN_DOCUMENTS = 4
"""Of a row."""


def rows_by_source(
    pack: Manifest | None, tokens: Manifest | None, characters: int, most_parts: int
) -> list[dict[str, Any]]:
    """The sources of which the most tokens are, each with some of its rows.

    Args:
        pack: without it nothing is shown.
        tokens: the stage of its tokenizer; nothing is shown without it, or if it is another than the rows' own.
        characters: of text that are shown of a row.
        most_parts: shards that are read.
    """
    if pack is None or tokens is None or tokens.fingerprint != pack.summary.get("tokenizer"):
        return []
    ranked = _ranked(pack, most_parts)
    order = [entry["value"] for entry in pack.summary["composition"].get("source", {"values": []})["values"]]
    sources = sorted(ranked, key=lambda source: (order.index(source) if source in order else len(order), source))
    processor = tokenizer.load(tokens.uri)
    return [
        {
            "source": source,
            "rows": [
                _shown(row, characters)
                for row in preview.shown_rows(pack, "train", [place for _, place in ranked[source]], processor)
            ],
        }
        for source in sources[:SHOWN_SOURCES]
    ]


def _ranked(pack: Manifest, most_parts: int) -> dict[str, list[tuple[int, preview.Place]]]:
    """Rows of each source by their hashes, the smallest first."""
    uris = pack.uris("samples")
    chosen = min(len(uris), most_parts)
    found: dict[str, list[tuple[int, preview.Place]]] = collections.defaultdict(list)
    for part in (i * len(uris) // chosen for i in range(chosen)):
        with storage.open_read(uris[part]) as stream:
            for row in pq.read_table(stream).to_pylist():
                found[row["source"]].append((row["rank"], preview.Place(part, row["row"])))
    return {source: sorted(rows)[:SHOWN_ROWS] for source, rows in found.items()}


def _shown(row: preview.ShownRow, characters: int) -> dict[str, Any]:
    shown = row.stretches[:SHOWN_DOCUMENTS]
    return {
        "part": row.place.part,
        "row": row.place.row,
        "padding": row.padding,
        "more_documents": len(row.stretches) - len(shown),
        "stretches": [
            {**stretch._asdict(), "text": both_ends(stretch.text, max(20, characters // len(shown)))}
            for stretch in shown
        ],
    }


def both_ends(text: str, characters: int) -> str:
    """The first two thirds and the last third of so many characters, an ellipsis for what lies between."""
    if len(text) <= characters:
        return text
    last = characters // 3
    return f"{text[: characters - last].rstrip()} … {text[-last:].lstrip()}"
