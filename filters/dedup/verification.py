"""Verification: is a document that is to be removed really like the one that is kept instead?

MinHash joins by chance, and connected components join what no pair did: with A like B and B like C, C may be removed
for A, with which it shares nothing. So what is compared is a removed near-duplicate and its keeper, by the exact
Jaccard similarity of their sets of shingles. In: a partition of clusters and the sets of what ``needed`` names.

* ``sample``: a share of them, to measure; what is removed stays removed.
* ``all``: the best document of a cluster is a keeper as before; of those that are not like it the best is another
  keeper, and so on: each document is removed for the first keeper, in the order of the ranking, that it is like. So a
  removal is of exact similarity ``verify_similarity`` or more. What a run of the index keeps is a keeper in any case.

Exact copies are one text here, that of the best of them: a million copies of a page are one set. Sets lie in a file on
local disk; memory is that of the ranking. Time: a cluster of n texts takes n · k comparisons, of 2 to 3 µs each for
sets of 500, k being its number of keepers, of which the first ``MOST_KEEPERS`` are compared with. So the worst there
is, a million texts in one cluster that are all unlike, takes about ten minutes of one core. Texts behind that many
keepers that are like none of them are kept, and counted (``kept_uncompared``); their exact copies are removed.
"""

import math
import os
import tempfile
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from filters.dedup import jaccard, partitions
from filters.dedup.config import DedupConfig
from filters.dedup.ranking import Mask, Partition, Places, starts
from filters.dedup.tables import SHINGLES, U64, spread

F64 = npt.NDArray[np.float64]

MOST_KEEPERS = 256
SALT = np.uint64(0x6A09E667F3BCC909)
"""So that the sample does not go by what puts documents into partitions."""


class Texts(NamedTuple):
    """The different texts of a partition, in the order of the ranking, cluster by cluster."""

    of: Places
    """Of each member its text."""
    best: Places
    """Of each text the place of the best member that has it."""
    opens: Mask
    """Whether it is the first text of its cluster."""


class Sets(NamedTuple):
    """Sets of shingles, one after the other; one that is not there begins at -1."""

    values: U64
    begin: Places
    end: Places


class Verified(NamedTuple):
    """What verification changes and counts."""

    best: Places
    """Of each member the place of its keeper, itself if it is kept."""
    similarity: F64 | None
    """Of each member and its keeper, exact; None where that was not computed for all."""
    counters: dict[str, int]


def texts_of(partition: Partition) -> Texts:
    """Members of one cluster that are exact copies, taken together."""
    high, low = (partition.members[name].to_numpy() for name in ("exact_high", "exact_low"))
    rank = np.empty(len(partition.order), np.int64)
    rank[partition.order] = np.arange(len(rank))
    by_text = np.lexsort([rank, low, high, partition.root])
    first = starts(partition.root[by_text], high[by_text], low[by_text])
    in_order = np.argsort(rank[by_text[first]])
    best = by_text[first][in_order]
    number, of = np.empty(len(best), np.int64), np.empty(len(rank), np.int64)
    number[in_order] = np.arange(len(best))
    of[by_text] = number[np.cumsum(first) - 1]
    return Texts(of, best, starts(partition.root[best]))


def questioned(partition: Partition, texts: Texts, config: DedupConfig) -> Mask:
    """The documents of this run whose removal is looked at: near-duplicates of the best of their cluster."""
    near = partition.is_new & ~texts.opens[texts.of]
    if config.verify == "sample":
        near &= spread(partition.node ^ SALT) <= np.uint64(max(1, int(config.verify_share * (1 << 64))) - 1)
    return near


def needed(partition: Partition, texts: Texts, config: DedupConfig) -> Mask:
    """The texts whose sets are compared."""
    asked = np.zeros(len(texts.best), np.bool_)
    asked[texts.of[questioned(partition, texts, config)]] = True
    cluster = np.cumsum(texts.opens) - 1
    touched = np.zeros(int(texts.opens.sum()), np.bool_)
    touched[cluster[asked]] = True
    in_touched: Mask = touched[cluster]
    return in_touched if config.verify == "all" else asked | (texts.opens & in_touched)


def read_sets(files: Mapping[str, Any], part: int, of: int, nodes: U64, wanted: Mask, folder: str) -> Sets:
    """The sets of the ``wanted`` ones of ``nodes``, brought to a file in ``folder`` and mapped from there."""
    found, lengths = [np.empty(0, np.uint64)], [np.empty(0, np.int64)]
    with tempfile.NamedTemporaryFile(dir=folder, prefix="shingles-", delete=False) as file:
        for table in partitions.read_all(files, part, of, SHINGLES):
            column = table["shingles"].combine_chunks()
            found.append(table["node"].to_numpy())
            lengths.append(column.value_lengths().to_numpy().astype(np.int64))
            file.write(column.flatten().to_numpy())
    values = np.memmap(file.name, np.uint64, "r") if os.path.getsize(file.name) else np.empty(0, np.uint64)
    node, length = np.concatenate(found), np.concatenate(lengths)
    order, after = np.argsort(node), np.cumsum(length)
    missing = ~np.isin(nodes[wanted], node)
    assert not missing.any(), f"{missing.sum()} of {wanted.sum()} documents have no shingles to compare"
    place = order[np.searchsorted(node, nodes[wanted], sorter=order)]
    begin, end = np.full(len(nodes), -1, np.int64), np.full(len(nodes), -1, np.int64)
    begin[wanted], end[wanted] = after[place] - length[place], after[place]
    return Sets(np.asarray(values), begin, end)


def verify(
    partition: Partition, texts: Texts, sets: Sets, config: DedupConfig, most_keepers: int = MOST_KEEPERS
) -> Verified:
    """Compares; where every removal is verified, gives those that fail other keepers, or none."""
    asked = questioned(partition, texts, config)
    with_first = np.zeros(len(texts.best))
    jaccard.similarity_with_first(*sets, texts.opens, with_first)
    measured = with_first[texts.of[asked]]
    fails = measured < config.verify_similarity
    counters = {"pairs_verified": int(asked.sum()), "false_positives": int(fails.sum())}
    for tenth, count in enumerate(np.bincount(np.minimum(np.floor(measured * 10), 9).astype(np.int64), minlength=10)):
        counters[f"pairs_of_similarity.0.{tenth}"] = int(count)
    best = partition.best()
    if config.verify != "all":
        return Verified(best, None, counters)
    keeper, with_keeper = np.empty(len(texts.best), np.int64), np.empty(len(texts.best))
    stays = ~partition.is_new[texts.best]
    jaccard.keepers(*sets, texts.opens, stays, with_first, config.verify_similarity, most_keepers, keeper, with_keeper)
    itself = np.arange(len(best))
    before = int((partition.is_new & (best == itself)).sum())
    best = texts.best[keeper][texts.of]
    counters["clusters_split"] = len(np.unique(partition.root[np.flatnonzero(asked)[fails]]))
    counters["removals_not_made"] = int((partition.is_new & (best == itself)).sum()) - before
    counters["kept_uncompared"] = _uncompared(texts, keeper, stays, most_keepers)
    return Verified(best, with_keeper[texts.of], counters)


def _uncompared(texts: Texts, keeper: Places, stays: Mask, most: int) -> int:
    """The texts of this run that are kept behind the last keeper with which others are compared."""
    keeps = keeper == np.arange(len(keeper))
    before = np.cumsum(keeps)
    first = np.maximum.accumulate(np.where(texts.opens, before, 0))
    return int((keeps & ~stays & (before - first >= most)).sum())


def summary(counters: Mapping[str, int], config: DedupConfig) -> dict[str, Any]:
    """What was found, for manifest and report: the share of removals that are none, and how sure that is.

    For a sample with the interval of Wilson 1927 at 95 %. It takes removals to fail independently of one another; those
    of one cluster do not, so where few large clusters fail the truth may lie outside more often.
    """
    pairs, wrong = counters.get("pairs_verified", 0), counters.get("false_positives", 0)
    found: dict[str, Any] = {
        "mode": config.verify,
        "similarity": config.verify_similarity,
        "pairs_verified": pairs,
        "false_positives": wrong,
        "false_positive_rate": round(wrong / pairs, 6) if pairs else None,
        "pairs_of_similarity": [counters.get(f"pairs_of_similarity.0.{tenth}", 0) for tenth in range(10)],
    }
    if config.verify == "sample":
        low, high = wilson(wrong, pairs)
        return {**found, "share": config.verify_share, "interval": [round(low, 6), round(high, 6)]}
    names = ("clusters_split", "removals_not_made", "kept_uncompared")
    return found | {name: counters.get(name, 0) for name in names}


def wilson(hits: int, trials: int, z: float = 1.959964) -> tuple[float, float]:
    """The interval in which a share lies of which ``hits`` of ``trials`` were seen; all of it without trials."""
    if not trials:
        return 0.0, 1.0
    share, ratio = hits / trials, z * z / trials
    middle, half = share + ratio / 2, z * math.sqrt(share * (1 - share) / trials + ratio / (4 * trials))
    return max(0.0, (middle - half) / (1 + ratio)), min(1.0, (middle + half) / (1 + ratio))
