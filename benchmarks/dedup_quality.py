r"""Which pairs deduplication joins, by their true similarity, beside the theoretical curve and beside datatrove.

``python benchmarks/dedup_quality.py GOLD GOLD_PAIRS NATURAL_PAIRS DOCUMENTS [--seeds 20] [--plot F.svg] [--out F]``

JSONL files (.gz or .zst too). GOLD: documents with ``id``, ``text``, ``role`` (``hard_negative``: same template, other
content) and ``template``. GOLD_PAIRS: ``a``, ``b``. NATURAL_PAIRS: ``id_a``, ``id_b``, of DOCUMENTS (``id``, ``text``).

The truth is the exact Jaccard similarity of a pair, computed here in plain Python: sets of five consecutive words,
``\w+`` of the lower-cased text. Pairs are cut into bins of it. Per bin and tool: the share of pairs that share a band,
the mean over ``--seeds`` choices of the hash functions, with Wilson's 95 % interval for the number of pairs; and the
share that the curve 1 − (1 − s^8)^14 gives, averaged over the pairs of the bin at the truth, and at the Jaccard of the
words as the tool itself sees them (without accents, digits folded or not): what differs from that one is the hashing.

Tools: the keys of our stage ``signatures``, and datatrove's ``MinhashDedupSignature`` with its default (numbers folded)
and with ``norm_numbers=False``; 14 bands of 8, 5-grams, Portuguese words, 64-bit xxhash.

Verdict per bin: above the threshold (1/14)^(1/8) = 0.72 more pairs joined is better, below it fewer. The difference is
taken pair by pair; its error is that of the choice of hash functions, from the seeds, and that of the choice of pairs,
from groups of pairs that share documents, together. Worse means by more than ``WORSE`` of these.

Then over all documents: pairs of any similarity that share a band, precision and recall at some similarities; the
clusters of GOLD, ours by all stages from Parquet to Parquet; hard negatives joined and removed.
"""

import argparse
import functools
import itertools
import json
import re
import tempfile
import unicodedata
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq
from datatrove.pipeline.dedup.minhash import MinhashConfig, MinhashDedupSignature
from datatrove.utils.text import TextNormConfig
from dedup_quality_plot import plot

from caravela import schema, storage
from caravela.manifest import Manifest
from caravela.progress import table
from caravela.stages import Shard, ShardOutput, Stage
from filters.dedup import partitions
from filters.dedup.config import DedupConfig
from filters.dedup.road import dedup_stages
from filters.dedup.signatures import signatures_stage
from filters.dedup.tables import KEYS
from tests.road_without_ray import finish

WORDS = 5
BIN = 0.05
WORSE = 2.6
"""Standard errors: two-sided 99 %, as some fifty differences are looked at."""
LEVELS = (0.5, 0.6, 0.7, 0.8, 0.9)
OURS, FOLDED, PLAIN = "ours", "datatrove", "datatrove, digits kept"
Documents = Mapping[str, str]
Pair = tuple[str, str]
Keys = Mapping[str, frozenset[int]]
"""Of each document; two documents that share one are joined."""


class Tool(NamedTuple):
    """One way to find near-duplicates."""

    keys: Callable[[int], Keys]
    """By seed."""
    similarity: Callable[[Pair], float]
    """Jaccard of a pair in the tool's own words."""


def main() -> None:
    """Prints the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("gold", "gold_pairs", "natural_pairs", "documents"):
        parser.add_argument(name)
    parser.add_argument("--seeds", type=int, default=20)
    parser.add_argument("--plot", default="", help="SVG file")
    parser.add_argument("--out", default="", help="where to write the figures as JSON")
    options = parser.parse_args()
    gold = {row["id"]: row for row in lines(options.gold)}
    named = [(row["a"], row["b"]) for row in lines(options.gold_pairs)]
    natural = [(row["id_a"], row["id_b"]) for row in lines(options.natural_pairs)]
    wanted = {each for pair in natural for each in pair}
    documents = {name: row["text"] for name, row in gold.items()}
    documents |= {row["id"]: row["text"] for row in lines(options.documents) if row["id"] in wanted}
    truth = Similarities(documents, lambda text: re.findall(r"\w+", text.lower()))
    tools = tools_for(documents)
    seeds = range(1, options.seeds + 1)
    keys = {name: [tool.keys(seed) for seed in seeds] for name, tool in tools.items()}
    figures: dict[str, Any] = {"documents": len(documents), "pairs": len(named) + len(natural), "seeds": len(seeds)}
    figures["bins"] = by_bin([*named, *natural], truth, tools, keys)
    figures["all pairs"] = over_all_pairs([*named, *natural], truth, {name: each[0] for name, each in keys.items()})
    figures |= on_gold(gold, named, truth, keys)
    print(as_text(figures))
    if options.plot:
        storage.write_text(options.plot, plot(figures["bins"], (OURS, FOLDED, PLAIN)))
    if options.out:
        Path(options.out).write_text(json.dumps(figures, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def lines(path: str) -> list[dict[str, Any]]:
    """The rows of a JSONL file."""
    compression = {"gz": "gzip", "zst": "zstd"}.get(path.rsplit(".", 1)[-1])
    with pa.input_stream(pa.py_buffer(storage.read_bytes(path)), compression=compression) as stream:
        return [json.loads(line) for line in stream.read().splitlines()]


class Similarities:
    """Exact Jaccard similarities of documents, by a way to cut a text into words."""

    def __init__(self, documents: Documents, words: Callable[[str], list[str]]) -> None:
        self.documents, self.words = documents, words
        self.shingles = functools.cache(self._shingles)

    def _shingles(self, name: str) -> frozenset[str]:
        words = self.words(self.documents[name])
        return frozenset(" ".join(words[i : i + WORDS]) for i in range(max(1, len(words) - WORDS + 1)))

    def __call__(self, pair: Pair) -> float:
        return jaccard(*(self.shingles(name) for name in pair))


def jaccard(one: frozenset[Any], other: frozenset[Any]) -> float:
    """Of two sets; two empty ones are equal."""
    return len(one & other) / len(one | other) if one or other else 1.0


def our_words(text: str) -> list[str]:
    """Words as the folding table has them: lower-cased letters and digits without marks."""
    plain = "".join(c for c in unicodedata.normalize("NFD", text.lower()) if unicodedata.category(c) != "Mn")
    return re.findall(r"[^\W_]+", plain)


def tools_for(documents: Documents) -> dict[str, Tool]:
    """Ours and datatrove's, by name."""
    tools = {OURS: Tool(lambda seed: our_keys(documents, seed), Similarities(documents, our_words))}
    for name, folded in ((FOLDED, True), (PLAIN, False)):
        tools[name] = datatrove_tool(documents, folded)
    return tools


class DocumentWorker:
    """Writes documents as curation would."""

    def __init__(self, documents: Documents) -> None:
        self.documents = documents

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        rows = out.table("documents", schema.documents(["line_punct_ratio"]))
        for name, text in self.documents.items():
            rows.add({"id": name, "text": text, "source": "", "date": ""})
        return {"documents_in": len(self.documents), "documents_kept": len(self.documents)}


def document_stage(root: str, documents: Documents) -> Stage:
    """A finished stage that holds the documents as one shard, in their order."""
    stage = Stage(
        name="curate",
        version=1,
        root=root,
        config={},
        inputs=(),
        plan=lambda: [Shard(index=0, name="documents", spec={})],
        make_worker=lambda: DocumentWorker(documents),
    )
    finish(stage)
    return stage


def our_keys(documents: Documents, seed: int) -> Keys:
    """The MinHash keys that the stage ``signatures`` writes."""
    names = list(documents)
    found: dict[str, set[int]] = defaultdict(set)
    with tempfile.TemporaryDirectory() as root:
        stage = document_stage(root, documents)
        done = finish(signatures_stage(root, DedupConfig(exact=False, seed=seed), stage.as_input()))
        of = done.shards[0].counters["partitions"]
        for uri, part in itertools.product(done.uris("keys"), range(of)):
            rows = partitions.read(uri, part, of, KEYS)
            for key, row in zip(rows["key"].to_pylist(), rows["row"].to_pylist(), strict=True):
                found[names[row]].add(key)
    return {name: frozenset(found[name]) for name in names}


def datatrove_tool(documents: Documents, folded: bool) -> Tool:
    """Datatrove's own shingles and signatures; a band with its number is a key."""
    normal = TextNormConfig(norm_numbers=folded)
    with tempfile.TemporaryDirectory() as folder:
        cut = MinhashDedupSignature(folder, MinhashConfig(norm_config=normal), language="por_Latn")
        shingles = {name: cut.get_shingles(text) for name, text in documents.items()}

    def keys(seed: int) -> Keys:
        with tempfile.TemporaryDirectory() as folder:
            step = MinhashDedupSignature(folder, MinhashConfig(seed=seed, norm_config=normal), language="por_Latn")
            bands = {name: step.get_signature(each) if len(each) else [] for name, each in shingles.items()}
        return {name: frozenset(hash((i, *band)) for i, band in enumerate(each)) for name, each in bands.items()}

    sets = functools.cache(lambda name: frozenset(shingles[name].ravel().tolist()))
    return Tool(keys, lambda pair: jaccard(sets(pair[0]), sets(pair[1])))


def by_bin(
    pairs: Sequence[Pair], truth: Callable[[Pair], float], tools: Mapping[str, Tool], keys: Mapping[str, list[Keys]]
) -> list[dict[str, Any]]:
    """The share of pairs that each tool joins, bin by bin."""
    groups = components(pairs)
    inside: dict[int, list[Pair]] = defaultdict(list)
    for pair in pairs:
        inside[int(truth(pair) / BIN + 1e-9)].append(pair)
    found = []
    for place, own in sorted(inside.items()):
        at = np.array([truth(pair) for pair in own])
        row: dict[str, Any] = {"from": round(place * BIN, 2), "pairs": len(own), "similarity": at.mean()}
        row["curve"] = curve(at).mean()
        shares, by_seed = {}, {}
        for name, tool in tools.items():
            every = np.array([[joined(each, pair) for pair in own] for each in keys[name]])
            shares[name], by_seed[name] = every.mean(axis=0), every.mean(axis=1)
            expected = curve(np.array([tool.similarity(pair) for pair in own])).mean()
            low, high = wilson(shares[name].mean(), len(own))
            row[name] = {"joined": shares[name].mean(), "low": low, "high": high, "own curve": expected}
        for name in (FOLDED, PLAIN):
            better = 1 if at.mean() >= (1 / 14) ** (1 / 8) else -1
            gain = better * (shares[OURS] - shares[name])
            error = error_of_mean(gain, [groups[pair[0]] for pair in own])
            seeds = (by_seed[OURS] - by_seed[name]).std(ddof=1) / len(keys[name]) ** 0.5 if len(keys[name]) > 1 else 0.0
            error = float(np.hypot(error, seeds))
            row[name] |= {"gain": gain.mean(), "error": error, "worse": bool(gain.mean() < -WORSE * error)}
        found.append(row)
    return found


def joined(keys: Keys, pair: Pair) -> bool:
    return not keys[pair[0]].isdisjoint(keys[pair[1]])


def curve(similarity: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return np.array([DedupConfig().probability(s) for s in similarity.tolist()])


def wilson(share: float, count: int, z: float = 1.96) -> tuple[float, float]:
    """Wilson's score interval of a share among ``count``."""
    middle = (share + z * z / (2 * count)) / (1 + z * z / count)
    half = z / (1 + z * z / count) * (share * (1 - share) / count + z * z / (4 * count * count)) ** 0.5
    return middle - half, middle + half


def error_of_mean(values: npt.NDArray[np.float64], groups: Sequence[str]) -> float:
    """Standard error of a mean whose values may depend on one another within a group."""
    sums: dict[str, float] = defaultdict(float)
    for value, group in zip((values - values.mean()).tolist(), groups, strict=True):
        sums[group] += value
    return float(sum(each * each for each in sums.values()) ** 0.5 / len(values))


def components(pairs: Iterable[Pair]) -> dict[str, str]:
    """A name of each document's connected component."""
    parent: dict[str, str] = {}

    def root(name: str) -> str:
        while parent.setdefault(name, name) != name:
            parent[name] = parent[parent[name]]
            name = parent[name]
        return name

    for one, other in pairs:
        first, second = sorted((root(one), root(other)))
        parent[second] = first
    return {name: root(name) for name in parent}


def joined_pairs(keys: Keys) -> set[Pair]:
    """All pairs of documents that share a key."""
    buckets: dict[int, list[str]] = defaultdict(list)
    for name, each in keys.items():
        for key in each:
            buckets[key].append(name)
    return {pair for bucket in buckets.values() for pair in itertools.combinations(sorted(bucket), 2)}


def over_all_pairs(
    pairs: Sequence[Pair], truth: Callable[[Pair], float], keys: Mapping[str, Keys]
) -> list[dict[str, Any]]:
    """Precision and recall of directly joined pairs, listed or not, at several similarities."""
    every = {name: joined_pairs(each) for name, each in keys.items()}
    listed = {(min(pair), max(pair)) for pair in pairs}.union(*every.values())
    similarity = {pair: truth(pair) for pair in listed}
    found = []
    for level in LEVELS:
        true = {pair for pair, value in similarity.items() if value >= level}
        row: dict[str, Any] = {"level": level, "pairs": len(true)}
        for name, own in every.items():
            row[name] = {"precision": len(own & true) / len(own), "recall": len(own & true) / len(true)}
        found.append(row)
    return found


def on_gold(
    gold: Mapping[str, Any], pairs: Sequence[Pair], truth: Callable[[Pair], float], keys: Mapping[str, list[Keys]]
) -> dict[str, Any]:
    """Clusters against those of the truth, and hard negatives."""
    documents = {name: row["text"] for name, row in gold.items()}
    of_gold = {name: {id_: found for id_, found in each[0].items() if id_ in gold} for name, each in keys.items()}
    clusters = {name: components(joined_pairs(each)) for name, each in of_gold.items()}
    clusters = {"ours, all stages": our_clusters(documents), **clusters}
    hard = [name for name, row in gold.items() if row["role"] == "hard_negative"]
    own_pairs = [pair for pair in pairs if pair[0] in hard and pair[1] in hard and truth(pair) < LEVELS[2]]
    found = []
    for level in LEVELS:
        true = same_cluster(components(pair for pair in pairs if truth(pair) >= level))
        row: dict[str, Any] = {"level": level, "pairs": len(true)}
        for name, own in clusters.items():
            predicted = same_cluster(own)
            good = len(true & predicted)
            row[name] = {"precision": good / len(predicted), "recall": good / len(true)}
        found.append(row)
    negatives = {
        name: {
            "removed": removed(own, hard),
            "by template": dict(Counter(gold[each]["template"] for each in lost(own, hard))),
            **({"joined": sum(joined(keys[name][0], pair) for pair in own_pairs)} if name in keys else {}),
        }
        for name, own in clusters.items()
    }
    return {"clusters": found, "hard": {"documents": len(hard), "pairs": len(own_pairs), **negatives}}


def our_clusters(documents: Documents) -> dict[str, str]:
    """The document that each clustered one lost to, or itself, from Parquet to Parquet."""
    with tempfile.TemporaryDirectory() as root:
        source = document_stage(root, documents)
        done: Manifest = [finish(stage) for stage in dedup_stages(root, DedupConfig(), source.as_input())][-1]
        kept = {row["id"] for row in rows_of(done, "documents") if row["cluster_size"] > 1}
        return {row["id"]: row["detail"] for row in rows_of(done, "removed")} | {name: name for name in kept}


def rows_of(done: Manifest, name: str) -> Iterable[dict[str, Any]]:
    return (row for uri in done.uris(name) for row in pq.read_table(uri).to_pylist())


def same_cluster(clusters: Mapping[str, str]) -> set[Pair]:
    """All pairs of documents of one cluster."""
    members: dict[str, list[str]] = defaultdict(list)
    for name, cluster in clusters.items():
        members[cluster].append(name)
    return {pair for each in members.values() for pair in itertools.combinations(sorted(each), 2)}


def lost(clusters: Mapping[str, str], names: Iterable[str]) -> list[str]:
    """Those of the documents whose cluster has one before them."""
    seen, found = set(), []
    for name in names:
        cluster = clusters.get(name, name)
        if cluster in seen:
            found.append(name)
        seen.add(cluster)
    return found


def removed(clusters: Mapping[str, str], names: Iterable[str]) -> int:
    return len(lost(clusters, names))


def as_text(figures: Mapping[str, Any]) -> str:
    """Everything as tables."""
    names = (OURS, FOLDED, PLAIN)
    out = [f"{figures['documents']:,} documents, {figures['pairs']:,} pairs, {figures['seeds']} seeds"]
    rows: list[tuple[str, ...]] = []
    for row in figures["bins"]:
        cells = [f"{row['from']:.2f}", f"{row['pairs']:,}", f"{row['curve']:.3f}"]
        for name in names:
            own = row[name]
            cells.append(f"{own['joined']:.3f} [{own['low']:.3f}, {own['high']:.3f}] ({own['own curve']:.3f})")
        cells += [verdict(row[name]) for name in names[1:]]
        rows.append(tuple(cells))
    heads = [f"{name} (own curve)" for name in names] + [f"against {name}" for name in names[1:]]
    out.append(table(("Jaccard from", "pairs", "curve", *heads), rows))
    for title in ("all pairs", "clusters"):
        tools = [name for name in figures[title][0] if name not in ("level", "pairs")]
        rows = []
        for row in figures[title]:
            cells = [f"{row[name]['precision']:.3f} / {row[name]['recall']:.3f}" for name in tools]
            rows.append((f"{row['level']}", f"{row['pairs']:,}", *cells))
        out.append(f"{title}: precision / recall at a Jaccard similarity of")
        out.append(table(("level", "pairs", *tools), rows))
    hard = figures["hard"]
    out.append(f"hard negatives: {hard['documents']} documents, {hard['pairs']:,} pairs below {LEVELS[2]}")
    for name, own in hard.items():
        if isinstance(own, dict):
            pairs = f"pairs joined {own.get('joined', '—')}"
            out.append(f"  {name}: {pairs}, documents removed {own['removed']} {own['by template']}")
    return "\n".join(out)


def verdict(own: Mapping[str, Any]) -> str:
    """Worse, better or equal within the sampling error, and by how much."""
    word = "WORSE" if own["worse"] else "better" if own["gain"] > WORSE * own["error"] else "equal"
    return f"{word} {own['gain']:+.3f} ± {own['error']:.3f}"


if __name__ == "__main__":
    main()
