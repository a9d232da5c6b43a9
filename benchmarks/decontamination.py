"""What decontamination finds and what it costs, beside datatrove's filter and beside a plain 13-gram rule.

``python benchmarks/decontamination.py --gold GOLD.jsonl.gz --items ITEMS.jsonl.gz [--documents DOCS.jsonl.gz]
[--folder EVAL --tasks enem oab ...] [--read 10] [--many 100000]``

GOLD holds documents: ``text``, ``contaminated``, ``kind`` (how an item was planted) and ``item`` (which). ITEMS holds
``item`` (the id), ``question`` and ``alternatives``. DOCS holds documents that are taken as clean: ``text``. EVAL is a
folder of tasks as ``caravela.data.evaluation_items`` reads them. Prints: per kind the share flagged and the share with
the right item named, at the default setting; precision and recall over the settings; what is flagged in DOCS, to be
read; MB and items per second of processor time, so that other processes do not count.

datatrove's rule is its own class, with 12-grams of question and alternatives, each apart. Where nltk is not installed,
blanks divide its words: the text that it is given has no punctuation any more, and then nltk does no more than that.
"""

import argparse
import dataclasses
import gzip
import importlib.machinery
import importlib.util
import json
import os
import platform
import random
import re
import statistics
import sys
import tempfile
import time
import types
import unicodedata
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
import pyarrow as pa

from caravela.data.evaluation_items import EvaluationItem, ItemFile, read_items
from caravela.progress import table
from filters.decontamination import DecontaminationConfig, ItemIndex, build_index, contamination_batch

DEFAULT = DecontaminationConfig()
LENGTHS = (3, 5, 6, 8, 10, 13)
THRESHOLDS = (0.1, 0.2, 0.25, 0.3, 0.35, 0.4, 0.45, 0.5, 0.6, 0.8)
BATCH = 256
ROUNDS = 3

Flags = list[bool]


def main() -> None:
    """Prints all tables that the arguments allow."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gold", required=True)
    parser.add_argument("--items", required=True)
    parser.add_argument("--documents")
    parser.add_argument("--folder", default="")
    parser.add_argument("--tasks", nargs="*", default=[])
    parser.add_argument("--read", type=int, default=0, metavar="N", help="print N flagged documents")
    parser.add_argument("--many", type=int, default=100_000, metavar="N", help="items of the large index")
    options = parser.parse_args()
    print(f"{platform.processor() or platform.machine()}, Python {platform.python_version()}, one run, one thread")
    items = list(read_items([ItemFile(uri=options.items, id="item", options="alternatives")], [], ""))
    gold = list(rows_of(options.gold))
    index = build_index(items, DEFAULT)
    print(index.describe(), "\n")
    texts = [row["text"] for row in gold]
    documents = [str(row["text"]) for row in rows_of(options.documents)] if options.documents else []
    with tempfile.TemporaryDirectory() as folder:
        peer = datatrove_filter(items, folder)
        print_kinds(gold, texts, index, [("datatrove, 12-gram", peer), ("any 13-gram", any_gram(items, 13))])
        print_curve(gold, texts, items, documents)
        if documents:
            named = build_index([*items, *read_items([], options.tasks, options.folder)], DEFAULT)
            print_flagged(documents, index, "the items", options.read)
            print_flagged(documents, named, f"the items and {', '.join(options.tasks)}", options.read)
            print_speed(documents, {"the items": index, "and the tasks": named}, peer)
    print_large(options.many, documents or texts)


def rows_of(path: str) -> Iterator[dict[str, Any]]:
    with gzip.open(path, "rt", encoding="utf-8") if path.endswith(".gz") else open(path, encoding="utf-8") as lines:
        yield from map(json.loads, lines)


def measured(texts: Sequence[str], index: ItemIndex) -> tuple[Any, Any]:
    """Scores and items of all texts, in batches as a stage makes them."""
    parts = [
        contamination_batch(pa.array(texts[start : start + BATCH], pa.large_string()), index)
        for start in range(0, len(texts), BATCH)
    ]
    return np.concatenate([scores for scores, _ in parts]), np.concatenate([found for _, found in parts])


def datatrove_filter(items: Sequence[EvaluationItem], folder: str) -> Callable[[str], bool]:
    """The filter of datatrove itself over an index of these items, as its indexer would write it."""
    if importlib.util.find_spec("nltk") is None:
        stand_in: Any = types.ModuleType("nltk")
        stand_in.__spec__ = importlib.machinery.ModuleSpec("nltk", None)
        stand_in.tokenize = types.ModuleType("nltk.tokenize")
        stand_in.tokenize.word_tokenize = lambda text, language: text.split()
        stand_in.ngrams = lambda words, n: zip(*(words[i:] for i in range(n)), strict=False)
        sys.modules |= {"nltk": stand_in, "nltk.tokenize": stand_in.tokenize}
    from datatrove.data import Document
    from datatrove.pipeline.decont.n_grams import NGramsDecontConfig, NGramsDecontFilter
    from datatrove.utils.hashing import create_hash_func
    from datatrove.utils.text import simplify_text

    config = NGramsDecontConfig(find_query_ngrams=True)
    hash_of, hashes = create_hash_func(config.hash_config), set()
    for item in items:
        for text in (*item.question, *item.options):
            words = simplify_text(text, config.norm_config).split()
            n = config.n_grams
            hashes |= {hash_of(" ".join(words[i : i + n])) for i in range(len(words) - n + 1)}
    np.array(sorted(hashes), "<u8").tofile(os.path.join(folder, "items.index.hashes"))
    rule = NGramsDecontFilter(folder, config)
    return lambda text: rule.filter(Document(text=text, id="")) is not True


def any_gram(items: Sequence[EvaluationItem], n: int) -> Callable[[str], bool]:
    """Whether a text shares one n-gram with any item; words as here."""

    def grams(text: str) -> set[tuple[str, ...]]:
        plain = unicodedata.normalize("NFD", text.lower())
        words = re.findall(r"[^\W_]+", "".join(each for each in plain if not unicodedata.combining(each)))
        return {tuple(words[i : i + n]) for i in range(len(words) - n + 1)}

    known = set().union(*(grams(text) for item in items for text in (*item.question, *item.options)))
    return lambda text: not known.isdisjoint(grams(text))


def print_kinds(
    gold: Sequence[dict[str, Any]],
    texts: Sequence[str],
    index: ItemIndex,
    peers: Sequence[tuple[str, Callable[[str], bool]]],
) -> None:
    scores, found = measured(texts, index)
    flagged = {"here": (scores >= np.float32(DEFAULT.threshold)).tolist()}
    flagged |= {name: [rule(text) for text in texts] for name, rule in peers}
    truth = [bool(row["contaminated"]) for row in gold]
    rows = []
    for kind in sorted({row["kind"] for row in gold}, key=lambda kind: (kind == "clean", kind)):
        mine = [i for i, row in enumerate(gold) if row["kind"] == kind]
        right = sum(found[i] >= 0 and index.ids[found[i]].split("/", 1)[1] == gold[i].get("item") for i in mine)
        cells = [f"{sum(flags[i] for i in mine)}" for flags in flagged.values()]
        spread = np.quantile(scores[mine], [0, 0.05, 0.5, 0.95, 1])
        named = str(right) if truth[mine[0]] else ""
        rows.append((kind, str(truth[mine[0]]), str(len(mine)), *cells, named, " ".join(f"{s:.2f}" for s in spread)))
    print(table(("kind", "contaminated", "documents", *flagged, "item named", "score 0 5 50 95 100 %"), rows))
    for name, flags in flagged.items():
        precision, recall = precision_recall(flags, truth)
        print(f"{name}: precision {precision:.3f}, recall {recall:.3f}")
    print()


def precision_recall(flags: Flags, truth: Flags) -> tuple[float, float]:
    both = sum(f and t for f, t in zip(flags, truth, strict=True))
    return both / max(1, sum(flags)), both / max(1, sum(truth))


def print_curve(
    gold: Sequence[dict[str, Any]], texts: Sequence[str], items: Sequence[EvaluationItem], documents: Sequence[str]
) -> None:
    truth = [bool(row["contaminated"]) for row in gold]
    rows = []
    for n in LENGTHS:
        index = build_index(items, dataclasses.replace(DEFAULT, n=n))
        scores, others = measured(texts, index)[0], measured(documents, index)[0] if documents else np.zeros(0)
        cells = []
        for threshold in map(np.float32, THRESHOLDS):
            precision, recall = precision_recall((scores >= threshold).tolist(), truth)
            cells.append(f"{precision:.3f} {recall:.3f} {np.count_nonzero(others >= threshold)}")
        rows.append((str(n), *cells))
    print("precision, recall, flagged documents; by words of an n-gram and threshold")
    print(table(("n", *map(str, THRESHOLDS)), rows), "\n")


def print_flagged(documents: Sequence[str], index: ItemIndex, name: str, read: int) -> None:
    scores, found = measured(documents, index)
    flagged = np.flatnonzero(scores >= np.float32(DEFAULT.threshold))
    print(f"{name}: {index.describe()}")
    print(f"flagged: {len(flagged)} of {len(documents)} documents")
    by_task: dict[str, int] = {}
    for i in flagged:
        task = index.ids[found[i]].split("/")[0]
        by_task[task] = by_task.get(task, 0) + 1
    print(by_task)
    for i in flagged[:: max(1, len(flagged) // read)][:read] if read else []:
        print(f"-- document {i}, {index.ids[found[i]]} {scores[i]:.2f}: {' '.join(documents[i].split())[:400]}")
    print()


def print_speed(documents: Sequence[str], indexes: dict[str, ItemIndex], peer: Callable[[str], bool]) -> None:
    size = sum(len(text.encode()) for text in documents) / 1e6
    batches = [
        pa.array(documents[start : start + BATCH], pa.large_string()) for start in range(0, len(documents), BATCH)
    ]
    some = random.Random(0).sample(list(documents), min(len(documents), 400))
    some_size = sum(len(text.encode()) for text in some) / 1e6
    speeds: dict[str, list[float]] = {}
    for _ in range(ROUNDS):
        for name, index in indexes.items():
            begin = time.thread_time()
            for batch in batches:
                contamination_batch(batch, index)
            speeds.setdefault(name, []).append(size / (time.thread_time() - begin))
        begin = time.thread_time()
        for text in some:
            peer(text)
        speeds.setdefault("datatrove, the items", []).append(some_size / (time.thread_time() - begin))
    base = statistics.median(speeds["datatrove, the items"])
    rows = [
        (name, f"{middle:.1f}", f"{min(found):.1f} to {max(found):.1f}", f"{middle / base:.0f}")
        for name, found in speeds.items()
        for middle in [statistics.median(found)]
    ]
    print(f"{size:.0f} MB of documents in batches of {BATCH}; median of {ROUNDS} rounds, in turn")
    print(table(("index", "MB/s", "from to", "times datatrove"), rows), "\n")


def print_large(count: int, texts: Sequence[str]) -> None:
    """An index of many items, cut out of the documents and shuffled, so that their words are those of the language."""
    rng, words = random.Random(0), " ".join(texts[:5000]).split()
    items = []
    for number in range(count):
        start = rng.randrange(max(1, len(words) - 60))
        cut = words[start : start + 60]
        rng.shuffle(cut)
        items.append(
            EvaluationItem(
                f"many/{number}", (" ".join(cut[:40]),), tuple(" ".join(cut[40 + 4 * j :][:4]) for j in range(5))
            )
        )
    begin = time.thread_time()
    index = build_index(items, DEFAULT)
    seconds = time.thread_time() - begin
    size = sum(array.nbytes for array in index.table) / 1e6
    print(f"index of {count:,} items: {seconds:.1f} s, {size:.0f} MB; {index.describe()}")
    batches = [pa.array(texts[start : start + BATCH], pa.large_string()) for start in range(0, len(texts), BATCH)]
    begin = time.thread_time()
    for batch in batches:
        contamination_batch(batch, index)
    taken = sum(batch.nbytes for batch in batches) / 1e6 / (time.thread_time() - begin)
    print(f"with it: {taken:.1f} MB/s")


if __name__ == "__main__":
    main()
