"""Precision and recall of the personal-data step per kind, its speed, and what it finds in real text.

``python benchmarks/personal_data.py [TEXTS.jsonl.gz ...] [--count 20000] [--seed 1] [--hits 30] [--every 1]``

Labelled sentences are those of ``personal_data_cases`` (generated, half of them look-alikes) and, beside them, the
sentences written by hand for the tests. An item counts as found when kind and characters are equal. For the files
(JSONL or Parquet with a column of texts), the counts per kind, MB/s of processor time, and ``--hits`` items drawn by
the seed, each with the words around it: these have no labels, and are there to be read.
"""

import argparse
import random
import statistics
import time
from collections import Counter
from collections.abc import Sequence

from personal_data_cases import Case, cases
from quality_speed import read

from caravela.progress import table
from filters.personal_data import PersonalDataConfig, items, mask
from filters.personal_data_rules import KINDS
from tests.filters.test_personal_data import LOOK_ALIKES, PERSONAL

CONFIG = PersonalDataConfig()
AROUND = 70


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("texts", nargs="*")
    parser.add_argument("--field", default="text")
    parser.add_argument("--count", type=int, default=20_000, help="generated sentences with items, and look-alikes")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--hits", type=int, default=30, help="items of the files to print")
    options = parser.parse_args()
    by_hand = [Case(text, found, "by hand") for text, found in [*PERSONAL, *((text, []) for text in LOOK_ALIKES)]]
    for name, labelled in (("written by hand", by_hand), ("generated", list(cases(options.seed, options.count)))):
        print(f"{name}: {len(labelled)} sentences, {sum(not case.items for case in labelled)} of them without an item")
        print(score(labelled))
    for path in options.texts:
        real(read(path, options.field), path, options.hits, options.seed)


def score(labelled: Sequence[Case]) -> str:
    """The table, and the frames that most often go wrong."""
    right, found, wanted = Counter[str](), Counter[str](), Counter[str]()
    missed, invented = Counter[str](), Counter[str]()
    for text, expected, frame in labelled:
        predicted = [(item.kind, text[item.start : item.end]) for item in items(text, CONFIG)]
        both = Counter(predicted) & Counter(expected)
        right.update(kind for kind, _ in both.elements())
        found.update(kind for kind, _ in predicted)
        wanted.update(kind for kind, _ in expected)
        missed[frame] += len(expected) - both.total()
        invented[frame] += len(predicted) - both.total()
    rows = [
        (kind, str(wanted[kind]), str(found[kind]), *(f"{right[kind] / max(1, c[kind]):.4f}" for c in (found, wanted)))
        for kind in KINDS
    ]
    totals = (right.total() / max(1, found.total()), right.total() / max(1, wanted.total()))
    rows.append(("all", str(wanted.total()), str(found.total()), *(f"{share:.4f}" for share in totals)))
    lines = [table(("kind", "items", "found", "precision", "recall"), rows)]
    lines += [f"missed {count} times in: {frame!r}" for frame, count in missed.most_common(8) if count]
    lines += [f"invented {count} times in: {frame!r}" for frame, count in invented.most_common(8) if count]
    return "\n".join(lines)


def real(texts: Sequence[str], name: str, hits: int, seed: int) -> None:
    """What is found in texts without labels."""
    size, speeds = sum(len(text.encode()) for text in texts) / 1e6, []
    for _ in range(3):
        clock = time.process_time()
        for text in texts:
            mask(text, CONFIG)
        speeds.append(size / (time.process_time() - clock))
    found = [(item, text) for text in texts for item in items(text, CONFIG)]
    print(f"{name}: {len(texts)} documents, {size:.1f} MB; {statistics.median(speeds):.0f} MB/s, median of 3")
    counts = Counter(item.kind for item, _ in found)
    print(table(("kind", "items", "per million documents"), [
        (kind, str(counts[kind]), f"{counts[kind] / len(texts) * 1e6:.0f}") for kind in KINDS
    ]))  # fmt: skip
    for item, text in random.Random(seed).sample(found, min(hits, len(found))):
        before, after = text[max(0, item.start - AROUND) : item.start], text[item.end : item.end + AROUND]
        print(f"{item.kind}: {f'{before}[[{text[item.start : item.end]}]]{after}'!r}")


if __name__ == "__main__":
    main()
