"""Stage ``what_if``: what other quality limits would drop, from the signals that a finished curation stored.

In: the tables ``documents`` and ``removed`` of a finished stage ``curate``, and limits to try. Out: ``what_if.html``, a
page to read that runs no script (``filters.what_if_page``), and ``what_if.json``, its figures. For each rule, under
the limits that are tried and under those of the finished run: how many documents it drops alone; in order, where the
first rule that a document breaks has it; and as the only rule that it breaks. For the curves, what share of the
documents each limit of a rule would drop.

Only documents that came as far as quality have signals and are counted. What later steps remove is not looked at. No
text is read: sizes are characters. The driver does it, in one pass over the columns of signals, at about a quarter of
a million documents a second; memory is that of a batch and of a histogram a signal.
"""

import functools
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from caravela import config as settings
from caravela import storage
from caravela.config import to_dict
from caravela.errors import UserError
from caravela.manifest import Input
from caravela.progress import table
from caravela.reporting.markup import percent
from caravela.reporting.tables import batches
from caravela.stages import Shard, ShardOutput, Stage, finished
from filters.decide_again import finished_but_for_limits
from filters.quality import RULES, QualityConfig, Rule, as_stored, signals_of
from filters.quality_batch import F32, broken_rules
from filters.what_if_page import render

PAGE_FILE, JSON_FILE = "what_if.html", "what_if.json"
BATCH_ROWS = 1 << 16
DROPPED_BITS = 14
"""Of a signal's 32 bits: values that differ in these alone lie in one bin of its histogram (0.2 % wide, and zero and
small whole numbers exactly)."""
CURVE_POINTS = 100
MOST_DROPPED = 0.6
"""A curve ends where it would drop more than this share, unless the limit itself does."""


def what_if_stage(curate: Stage, quality: QualityConfig) -> Stage:
    """The stage that tries ``quality`` on the finished curation that differs from ``curate`` in nothing but limits.

    Raises:
        UserError: there is none.
    """
    basis = finished_but_for_limits(curate)
    if basis is None:
        raise UserError(
            f"{storage.join(curate.root, curate.name)}: no finished curation of these inputs and settings, quality "
            "limits apart; make one with jobs/curate.py"
        )
    source = Input(name=basis.stage, fingerprint=basis.fingerprint, uri=basis.uri)
    return Stage(
        name="what_if",
        version=1,
        root=curate.root,
        config={"quality": to_dict(quality)},
        inputs=(source,),
        plan=lambda: [Shard(index=0, name=PAGE_FILE, spec={})],
        make_worker=functools.partial(WhatIfWorker, source, quality),
        in_driver=True,
    )


@dataclass
class Dropped:
    """Documents, and the characters in them."""

    documents: int = 0
    characters: int = 0

    def add(self, chosen: npt.NDArray[np.bool_], characters: npt.NDArray[np.int64]) -> None:
        self.documents += int(chosen.sum())
        self.characters += int(characters[chosen].sum())


@dataclass
class Outcome:
    """What some limits do."""

    kept: Dropped = field(default_factory=Dropped)
    alone: list[Dropped] = field(default_factory=lambda: [Dropped() for _ in RULES])
    in_order: list[Dropped] = field(default_factory=lambda: [Dropped() for _ in RULES])
    only: list[Dropped] = field(default_factory=lambda: [Dropped() for _ in RULES])

    def add(self, signals: Mapping[str, F32], limits: QualityConfig) -> npt.NDArray[np.bool_]:
        """Counts some documents, and gives which of them are kept."""
        characters = np.rint(signals["characters"]).astype(np.int64)
        broken = dict(broken_rules(signals, limits))
        how_many = sum((mask.astype(np.int16) for mask in broken.values()), np.zeros(len(characters), np.int16))
        free = np.ones(len(characters), np.bool_)
        for place, mask in broken.items():
            self.alone[place].add(mask, characters)
            self.in_order[place].add(mask & free, characters)
            self.only[place].add(mask & (how_many == 1), characters)
            free &= ~mask
        self.kept.add(free, characters)
        return free


@dataclass(frozen=True)
class WhatIfWorker:
    """Counts, and writes both files."""

    source: Input
    quality: QualityConfig

    def __call__(self, shard: Shard, out: ShardOutput) -> Mapping[str, int]:
        figures = collect(self.source, self.quality)
        with open(out.local_path(JSON_FILE), "w", encoding="utf-8") as file:
            json.dump(figures, file, ensure_ascii=False, indent=1)
        with open(out.local_path(PAGE_FILE), "w", encoding="utf-8") as file:
            file.write(render(figures))
        return {"measured": figures["documents"]}


def collect(source: Input, quality: QualityConfig) -> dict[str, Any]:
    """All figures, as plain JSON types."""
    basis = finished(source)
    own = settings.build(QualityConfig, basis.config["quality"], basis.uri)
    names = signals_of(own)
    if missing := set(signals_of(quality)).difference(names):
        raise UserError(
            f"curate.quality: {basis.uri} holds no {sorted(missing)[0]}; run jobs/curate.py with these limits, or with "
            "the highest ones, which drop nothing"
        )
    limits = {"tried": quality, "finished": own}
    outcomes = {name: Outcome() for name in limits}
    everything, comes, goes = Dropped(), Dropped(), Dropped()
    histograms = {name: np.zeros(1 << (32 - DROPPED_BITS), np.int64) for name in names}
    for part in ("documents", "removed"):
        for batch in batches(basis, part, names, batch_rows=BATCH_ROWS):
            measured = batch.filter(batch["characters"].is_valid())
            signals = {name: measured[name].to_numpy(zero_copy_only=False) for name in names}
            kept = {name: outcomes[name].add(signals, as_stored(each)) for name, each in limits.items()}
            characters = np.rint(signals["characters"]).astype(np.int64)
            everything.add(np.ones(len(characters), np.bool_), characters)
            comes.add(kept["tried"] & ~kept["finished"], characters)
            goes.add(kept["finished"] & ~kept["tried"], characters)
            for name, values in signals.items():
                bins = np.ascontiguousarray(values, np.float32).view(np.uint32) >> DROPPED_BITS
                histograms[name] += np.bincount(bins, minlength=len(histograms[name]))
    return {
        "finished_run": basis.uri,
        **asdict(everything),
        "kept": {name: asdict(outcome.kept) for name, outcome in outcomes.items()},
        "kept_only_now": asdict(comes),
        "dropped_only_now": asdict(goes),
        "rules": [
            {
                "rule": f"{rule.filter}.{rule.reason}",
                "signal": rule.signal,
                "side": rule.side,
                "setting": rule.limit and f"curate.quality.{rule.filter}.{rule.limit}",
                "limit": {name: limit_of(rule, each) for name, each in limits.items()},
                **{
                    kind: {name: asdict(getattr(outcome, kind)[place]) for name, outcome in outcomes.items()}
                    for kind in ("alone", "in_order", "only")
                },
                "curve": curve(rule, histograms[rule.signal], limits) if rule.limit else [],
            }
            for place, rule in enumerate(RULES)
            if rule.signal in names
        ],
    }


def limit_of(rule: Rule, quality: QualityConfig) -> float | None:
    """What a rule holds a text to; None where it is off."""
    section = getattr(quality, rule.filter)
    limit = 1.0 if rule.limit is None else float(getattr(section, rule.limit))
    return limit if section.enabled and limit else None


def curve(rule: Rule, histogram: npt.NDArray[np.int64], limits: Mapping[str, QualityConfig]) -> list[list[float]]:
    """Points [limit, share of documents that it drops], over the range that a person might choose from."""
    filled = np.flatnonzero(histogram)
    if not len(filled):
        return []
    values = (filled.astype(np.uint32) << DROPPED_BITS).view(np.float32).astype(float)
    upto = np.cumsum(histogram[filled]) / histogram.sum()
    # Of a value's own bin all documents reach the limit, and none lies beyond it.
    dropped = 1 - upto if rule.side == "above" else np.concatenate([[0.0], upto[:-1]])
    if rule.signal == "line_punct_ratio" and limits["tried"].fineweb_quality.line_punct_exclude_zero:
        dropped = np.maximum(0, dropped - histogram[0] / histogram.sum())
    shown = (dropped <= MOST_DROPPED) & (dropped >= 0.0005)
    marked = [limit for each in limits.values() if (limit := limit_of(rule, each)) and limit <= 1.2 * values[-1]]
    for limit in marked:
        shown |= (values >= 0.6 * limit) & (values <= 1.3 * limit)
    places = np.flatnonzero(shown)
    if len(places) < 2:
        return []
    low, high = values[places[0]], values[places[-1]]
    inside = np.flatnonzero((values >= low) & (values <= high))
    wanted = np.unique(np.searchsorted(values[inside], np.linspace(low, high, CURVE_POINTS)).clip(0, len(inside) - 1))
    return [[float(values[i]), float(dropped[i])] for i in inside[wanted].tolist()]


def as_text(figures: Mapping[str, Any]) -> str:
    """The figures for a terminal: rules that are on or drop something."""
    total = max(1, figures["documents"])
    rows = []
    for rule in figures["rules"]:
        alone, in_order, only = rule["alone"], rule["in_order"], rule["only"]
        if any(limit is not None for limit in rule["limit"].values()):
            change = in_order["tried"]["documents"] - in_order["finished"]["documents"]
            rows.append(
                (
                    rule["rule"],
                    limit_text(rule["limit"]["tried"], rule["side"]),
                    *(f"{each['tried']['documents']:,}" for each in (alone, in_order, only)),
                    limit_text(rule["limit"]["finished"], rule["side"]),
                    f"{in_order['finished']['documents']:,}",
                    f"{change:+,}" if change else "",
                )
            )
    kept = figures["kept"]
    headings = ("rule", "limit", "alone", "in order", "only", "limit there", "in order there", "change")
    lines = [
        table(headings, rows),
        "",
        f"of {figures['documents']:,} documents with signals in {figures['finished_run']}",
        f"kept {kept['tried']['documents']:,} ({percent(kept['tried']['documents'] / total)}), there "
        f"{kept['finished']['documents']:,}; {figures['kept_only_now']['documents']:,} come, "
        f"{figures['dropped_only_now']['documents']:,} go",
    ]
    return "\n".join(lines)


def limit_text(limit: float | None, side: str) -> str:
    """``limit_text(0.1, "above") == "at most 0.1"``."""
    return "off" if limit is None else f"at {'most' if side == 'above' else 'least'} {limit:.6g}"
