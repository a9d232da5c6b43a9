"""What lid.176 alone, and with the second look of filters/near_languages.py, takes for Portuguese, and what it loses.

``python benchmarks/language_confusion.py LABELLED.jsonl[.gz] [...] [--verdicts VERDICTS.jsonl] [--out FIGURES.json]``

Each line of LABELLED is an object with an id, a text, its language (``lang``, as lid.176 spells it), and perhaps its
``length`` and ``tag``. A row is a language and length, or a tag: pages of two languages (``mul``) and pages that say
that they are Portuguese and are not stand apart. Columns: the share taken for Portuguese at three thresholds; for
Portuguese, the share lost. The last table says what the second look costs and how many texts get it.

The shipped weights have seen the texts that they were fitted to. ``fit_near_languages.py --verdicts`` writes what
weights that had not seen a text's source said of it; with ``--verdicts`` the table goes by these.
"""

import argparse
import gzip
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from caravela import storage
from caravela.progress import table
from filters.language import LanguageConfig, LanguageIdentifier
from filters.near_languages import LANGUAGES, PORTUGUESE, NearLanguages, NearLanguagesConfig

CANDIDATES = 3
APART = ("declared_pt_but_other",)  # tags of texts that get rows of their own
LENGTHS = ("short", "sentence", "paragraph", "document")
THRESHOLDS = (0.5, 0.65, 0.799)


@dataclass(frozen=True)
class Judged:
    """A labelled text and what is said of it: label and score, by lid.176 alone and with the second look."""

    language: str
    length: str
    tag: str
    alone: tuple[str, float]
    looked: tuple[str, float]

    @property
    def row(self) -> str:
        """Where it stands in the table."""
        return f"{self.language} {self.length}" if not self.tag else f"{self.language} {self.length} ({self.tag})"


def main() -> None:
    """Prints the tables and writes the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("labelled", nargs="+", help="JSONL files, plain or gzip")
    parser.add_argument("--verdicts", default="", help="JSONL file of cross-validated verdicts")
    parser.add_argument("--out", default="", help="JSON file for the figures")
    options = parser.parse_args()

    identifier = LanguageIdentifier.from_config(LanguageConfig(candidates=CANDIDATES))
    looking = NearLanguages.load(NearLanguagesConfig())
    verdicts = dict(read_verdicts(options.verdicts)) if options.verdicts else {}
    judged, costs = [], Costs()
    for row in read(options.labelled):
        text, ranking = row["text"], identifier.identify(row["text"])
        clock = time.perf_counter()
        looked = ranking[0]
        if wanted := looking.is_wanted(len(text), ranking):
            looked = looking.second_look(text, ranking)
        costs.add(text, wanted, time.perf_counter() - clock)
        looked = verdicts.get(str(row["id"]), looked)
        tag = row["tag"] if row.get("tag") in APART else ""
        judged.append(Judged(row["lang"], row.get("length") or "document", tag, ranking[0], looked))
    figures = figures_of(judged)
    print(figures_table(figures))
    print()
    print(costs.line())
    if options.out:
        storage.write_text(options.out, json.dumps(figures, ensure_ascii=False, indent=1) + "\n")


@dataclass
class Costs:
    """How many texts were looked at, and how long that took."""

    texts: int = 0
    looked_at: int = 0
    characters: int = 0
    seconds: float = 0.0

    def add(self, text: str, wanted: bool, seconds: float) -> None:
        self.texts += 1
        self.looked_at += wanted
        self.characters += len(text)
        self.seconds += seconds

    def line(self) -> str:
        each = self.seconds / max(1, self.looked_at) * 1e6
        return (
            f"{self.looked_at:,} of {self.texts:,} texts looked at ({self.looked_at / max(1, self.texts):.1%}), "
            f"{each:.0f} microseconds each; over all texts "
            f"{self.characters / 1e6 / max(self.seconds, 1e-9):,.0f} million characters/s"
        )


def read(uris: Sequence[str]) -> Iterator[dict[str, Any]]:
    """The lines of JSONL files, plain or gzip."""
    for uri in uris:
        raw = storage.read_bytes(uri)
        yield from map(json.loads, (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).splitlines())


def read_verdicts(uri: str) -> Iterator[tuple[str, tuple[str, float]]]:
    """Label and score by the id of a text."""
    for row in read([uri]):
        yield row["id"], (row["label"], row["score"])


def is_taken(verdict: tuple[str, float], threshold: float) -> bool:
    """Whether a text with this label and score is kept as Portuguese."""
    return verdict[0] == PORTUGUESE and verdict[1] >= threshold


def figures_of(judged: Sequence[Judged]) -> dict[str, dict[str, float]]:
    """Per row the number of texts, and the share taken for Portuguese (of Portuguese: lost) at each threshold."""
    rows: dict[str, list[Judged]] = {}
    for text in judged:
        rows.setdefault(text.row, []).append(text)
    figures: dict[str, dict[str, float]] = {}
    for name in sorted(rows, key=_order):
        texts = rows[name]
        figures[name] = {"texts": len(texts)}
        for way in ("alone", "looked"):
            for threshold in THRESHOLDS:
                taken = sum(is_taken(getattr(text, way), threshold) for text in texts) / len(texts)
                found = 1 - taken if texts[0].language == PORTUGUESE else taken
                figures[name][f"{way} {threshold}"] = round(found, 4)
    return figures


def _order(row: str) -> tuple[bool, int, str, int]:
    language, length, *tag = row.split(" ", 2)
    near = LANGUAGES.index(language) if language in LANGUAGES else len(LANGUAGES)
    return bool(tag), near, language, LENGTHS.index(length) if length in LENGTHS else len(LENGTHS)


def figures_table(figures: Mapping[str, Mapping[str, float]]) -> str:
    """The figures as text; languages beyond the near ones only where something was taken for Portuguese."""
    rows = []
    for name, row in figures.items():
        shares = [share for column, share in row.items() if column != "texts"]
        if name.split()[0] in LANGUAGES or any(shares):
            lost = " lost" if name.split()[0] == PORTUGUESE else ""
            rows.append((name + lost, f"{row['texts']:,}", *(f"{share:.1%}" for share in shares)))
    ways = [f"{way} {threshold}" for way in ("lid.176", "second look") for threshold in THRESHOLDS]
    return table(("taken for Portuguese", "texts", *ways), rows)


if __name__ == "__main__":
    main()
